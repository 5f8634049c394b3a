"""Hooks of mkdocs: pages from files outside docs/, and links that lead out of it.

README, CONTRIBUTING and CHANGELOG become pages. A link to any other file of the repository stays as
the file's path, since the site has no such page; a file that does not exist is an error.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_SOURCES = {page: file for file, page in FROM_ROOT.items()}
_LINK = re.compile(
    r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<heading>#[^)]*)?\)"
)
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    place = page.file.src_uri
    source = _SOURCES.get(place, f"docs/{place}")
    parts = _FENCED.split(markdown)
    for index in range(0, len(parts), 2):  # code blocks stay as they are
        parts[index] = _LINK.sub(lambda link: _link(link, source, place), parts[index])
    return "".join(parts)


def _link(link: re.Match[str], source: str, place: str) -> str:
    """The link on the page ``place``, made from ``source``, a path in the repository."""
    target = link["target"]
    if "://" in target:
        return link[0]
    file = normpath(str(PurePosixPath(source).parent / target))
    if not (ROOT / file).exists():
        raise PluginError(f"{source}: the link to {target} leads nowhere")
    to = FROM_ROOT.get(file, file.removeprefix("docs/") if file.startswith("docs/") else "")
    if not to or (ROOT / file).is_dir() or file.endswith(".py"):
        return (
            f"{link['text']} (`{file}`)"
            if link["text"] != PurePosixPath(file).name
            else f"`{file}`"
        )
    path = relpath(to, str(PurePosixPath(place).parent))
    return f"{link['picture']}[{link['text']}]({path}{link['heading'] or ''})"
