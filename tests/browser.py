"""Chromium through playwright, for tests marked ``browser``; a skip that says what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (Debian's package chromium)")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
