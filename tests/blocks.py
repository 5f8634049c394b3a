"""Code blocks of README and docs/, and how they are run.

A block is run as it stands, in the folder that is current: of ``sh`` and ``console`` the commands
of `na-convert`, in this process; ``python`` in one namespace per page, functions called ``test_*``
included; of ``yaml`` the commands of `na-convert` that stand in it. What comes before a block in
comments says otherwise, or prepares it::

    <!-- not run: needs a GPU -->           it is not, and why
    <!-- before: frames = [] -->            Python to run first
    <!-- exit code: 1 -->                   how its last command ends

``<!-- blocks not run: ... -->`` stands for all blocks of a page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from na_convert import cli

RUN = ("sh", "console", "python", "yaml")
NOT_CODE = ("text",)
_BLOCK = re.compile(
    r"(?P<comments>(?:^<!--(?:(?!-->).)*-->\n+)*)^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!-- (?P<key>not run|before|exit code): (?P<value>.*?) -->", re.DOTALL)
_PAGE = re.compile(r"^<!-- blocks not run: (.*?) -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block and what the comments above it say; ``why_not`` is empty if it is run."""

    page: str
    line: int
    language: str
    text: str
    why_not: str = ""
    before: str = ""
    exit_code: int = 0

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    page = path.read_text()
    whole = _PAGE.search(page)
    found = []
    for match in _BLOCK.finditer(page):
        said = {m["key"]: m["value"] for m in _COMMENT.finditer(match["comments"])}
        line = page[: match.start("language")].count("\n") + 1
        found.append(
            Block(
                path.name,
                line,
                match["language"],
                match["text"],
                said.get("not run", whole[1] if whole else ""),
                said.get("before", ""),
                int(said.get("exit code", 0)),
            )
        )
    return found


class Runner:
    """Runs blocks in the folder that is current; a command is run once."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    def page(self, path: Path) -> None:
        """Every block of the page that is to be run."""
        names: dict[str, Any] = {"__name__": path.stem}
        for block in blocks(path):
            if not block.why_not and block.language not in NOT_CODE:
                self._block(block, names)

    def _block(self, block: Block, names: dict[str, Any]) -> None:
        exec(compile(block.before, block.place, "exec"), names)
        if block.language == "python":
            already = set(names)
            exec(compile(block.text, block.place, "exec"), names)
            for name in names.keys() - already:
                if name.startswith("test_"):
                    names[name]()
            return
        commands = list(_commands(block))
        for command in commands:
            self.command(command, block.exit_code if command is commands[-1] else 0, block.place)

    def command(self, command: str, exit_code: int = 0, place: str = "") -> None:
        """One command of `na-convert`, unless it was run here before."""
        program, *arguments = shlex.split(command, comments=True)
        assert program == "na-convert", f"{place}: {command}: only na-convert is run"
        if command not in self._done:
            with pytest.raises(SystemExit) as left:
                cli.main(arguments)
            assert left.value.code == exit_code, f"{place}: {command}"
            self._done.add(command)


def _commands(block: Block) -> Iterator[str]:
    if block.language == "yaml":
        yield from _in_yaml(yaml.safe_load(block.text))
        return
    text = block.text.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        if line and not line.startswith("#"):
            yield from (part.strip() for part in line.split("&&"))


def _in_yaml(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _in_yaml(each)
    elif isinstance(value, str) and value.startswith("na-convert "):
        yield " ".join(value.split())
