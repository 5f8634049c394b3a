"""The licences of what na-convert is installed with, from the packages' own metadata.

    python benchmarks/licences.py > docs/licences.md

Lists the dependencies of the core and of each extra, and what these depend on, as far as they are
installed here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
HEAD = """# Licences of the dependencies

na-convert itself is under the MIT licence. What it is installed with, from the packages' metadata
(`python benchmarks/licences.py` wrote this page; without development tools):
"""


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    groups = {"core": project["dependencies"]}
    groups |= {f"extra `{name}`": needs for name, needs in extras.items() if name != "dev"}
    print(HEAD)
    print("| package | licence | needed by |")
    print("| --- | --- | --- |")
    seen: set[str] = set()
    for group, needs in groups.items():
        for name in sorted(set(closure(needs)) - seen):
            seen.add(name)
            print(f"| {name} | {licence_of(name)} | {group} |")


def closure(needs: list[str]) -> Iterator[str]:
    """Names of packages that ``needs`` come to, dependencies of dependencies included."""
    waiting, found = list(needs), set[str]()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name == "na-convert" or name in found or not wanted:
            continue
        found.add(name)
        yield name
        try:
            waiting += requires(name) or []
        except PackageNotFoundError:
            continue  # listed as not installed


def licence_of(name: str) -> str:
    """The licence expression, the classifiers, or the first line of the licence field."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return "not installed where this page was made"
    expression = found.get("License-Expression")
    if expression:
        return expression
    classifiers = [c for c in found.get_all("Classifier") or [] if c.startswith("License ::")]
    names = [c.rsplit(" :: ", 1)[1] for c in classifiers]
    text = (found.get("License") or "").strip().splitlines()
    return ", ".join(names) or (text[0] if text else "not stated")


if __name__ == "__main__":
    main()
