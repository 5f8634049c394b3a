"""The example's files in Netron, as pictures: ``python benchmarks/netron_pictures.py docs/netron``.

Needs the extra ``browser`` and Debian's chromium, fonts-liberation and fonts-wqy-microhei.
`tests/test_netron.py` drives Netron through the functions here.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZE = {"width": 1160, "height": 640}
COLOURS = 48  # of a picture

_ROOT = Path(__file__).parent.parent
EXAMPLE = _ROOT / "examples/resnet8-cifar10.onnx"


@contextmanager
def opened(file: Path, browser: Any) -> Iterator[Any]:
    """A page of ``browser`` on which Netron shows ``file``; nothing but its own server is asked."""
    import netron

    logging.getLogger("netron").setLevel(logging.WARNING)
    address = netron.start(str(file), browse=False)
    url = f"http://{address[0]}:{address[1]}"
    context = browser.new_context(viewport=SIZE)
    try:
        # Netron asks for consent to its cookies, and half a year after its release for an update.
        context.add_cookies([{"name": "consent", "value": "1", "url": url}])
        page = context.new_page()
        page.route(lambda asked: not asked.startswith(url), lambda route: route.abort())
        page.route(f"{url}/", _undated)
        page.goto(url)
        page.wait_for_selector("g.node", timeout=60_000)
        page.wait_for_selector("body:not(.spinner)")
        page.wait_for_timeout(300)  # it fades in
        yield page
    finally:
        context.close()
        netron.stop(address)


def _undated(route: Any) -> None:
    answer = route.fetch()
    text = re.sub(r'<meta name="date" content="[^"]*">', "", answer.text())
    route.fulfill(response=answer, body=text)


def node_names(page: Any) -> list[str]:
    """The names of the nodes that Netron has drawn, in its order."""
    prefix = "node-name-"
    ids = page.locator(f'g.node[id^="{prefix}"]')
    return [ids.nth(i).get_attribute("id").removeprefix(prefix) for i in range(ids.count())]


def select(page: Any, node: str) -> dict[str, str]:
    """Click on a node; what the sidebar then says, by the name of the row."""
    box = page.locator(f'g.node[id="node-name-{node}"]')
    box.scroll_into_view_if_needed()
    box.locator(".node-item").first.click()
    return sidebar(page)


def model_properties(page: Any) -> dict[str, str]:
    page.locator("#sidebar-model-button").click()
    return sidebar(page)


def sidebar(page: Any) -> dict[str, str]:
    """The rows of the open sidebar, by name."""
    page.wait_for_timeout(300)  # it slides in
    rows = page.locator("#sidebar .sidebar-item")
    return {
        rows.nth(i).locator(".sidebar-item-name input").first.input_value(): rows.nth(i)
        .locator(".sidebar-item-value-list")
        .inner_text()
        .strip()
        for i in range(rows.count())
    }


def close_sidebar(page: Any) -> None:
    page.locator("#sidebar-closebutton").click()
    page.wait_for_timeout(300)


def write(folder: Path) -> None:
    """The pictures of `docs/netron.md`."""
    from playwright.sync_api import sync_playwright

    import na_convert

    folder.mkdir(exist_ok=True)
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as temporary:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        for name, options in (
            ("folded", {}),
            ("step", {"form": "step"}),
            ("unrolled", {"form": "unrolled"}),
            ("int8", {"weights": "int8"}),
        ):
            file = Path(temporary) / f"{name}.onnx"
            na_convert.convert(EXAMPLE, output=file, timesteps=2, check=False, **options)
            with opened(file, browser) as page:
                layer = "node_mul_33"
                node = {"unrolled": f"{layer}/spikes/1", "int8": f"{layer}_t1"}.get(name, layer)
                page.keyboard.press("Control+u" if name == "unrolled" else "Control+d")
                page.wait_for_timeout(500)
                select(page, node)
                _centre(page, node)
                _keep(page, folder / f"{name}.png")
                if name == "folded":
                    close_sidebar(page)
                    model_properties(page)
                    _keep(page, folder / "model.png")
        browser.close()


def _centre(page: Any, node: str) -> None:
    """Scroll until ``node`` is in the middle of what the sidebar leaves free."""
    place = page.locator(f'g.node[id="node-name-{node}"]').bounding_box()
    page.mouse.move(SIZE["width"] / 4, SIZE["height"] / 2)
    page.mouse.wheel(
        place["x"] + place["width"] / 2 - SIZE["width"] / 4,
        place["y"] + place["height"] / 2 - SIZE["height"] / 2,
    )
    page.wait_for_timeout(300)


def _keep(page: Any, path: Path) -> None:
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
