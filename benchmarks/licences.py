"""The licences of what na-convert is installed with, from the packages' own metadata.

    python benchmarks/licences.py > docs/licences.md

Lists the dependencies of the core and of each extra, what these depend on, and readers.txt, which
is installed without what it depends on. All of it has to be installed here: the exit code is 1, and
the page says so, where one is not.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYPROJECT, READERS = ROOT / "pyproject.toml", ROOT / "readers.txt"
HEAD = """# Licences of the dependencies

na-convert itself is under the MIT licence. What it is installed with, from the packages' metadata
(`python benchmarks/licences.py` wrote this page; without development tools):
"""


MISSING = "not installed where this page was made"


def main() -> int:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    groups = {"core": project["dependencies"]}
    groups |= {f"extra `{name}`": needs for name, needs in extras.items() if name != "dev"}
    print(HEAD)
    print("| package | licence | needed by |")
    print("| --- | --- | --- |")
    found = {group: set(closure(needs)) for group, needs in groups.items()}
    pinned = READERS.read_text().splitlines()
    found["`readers.txt`"] = {line.split("==")[0] for line in pinned if not line.startswith("#")}
    licences: dict[str, str] = {}
    for group, names in found.items():
        for name in sorted(names - set(licences)):
            licences[name] = licence_of(name)
            print(f"| {name} | {licences[name]} | {group} |")
    return int(MISSING in licences.values())


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
    """The licence expression, the classifiers, or the first line of the licence field, or file."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return MISSING
    expression = found.get("License-Expression")
    if expression:
        return expression
    classifiers = [c for c in found.get_all("Classifier") or [] if c.startswith("License ::")]
    names = [c.rsplit(" :: ", 1)[1] for c in classifiers]
    text = (found.get("License") or "").strip() or _file(name, found.get("License-File"))
    return ", ".join(names) or (text.splitlines()[0] if text else "not stated")


def _file(name: str, licence: str | None) -> str:
    text = distribution(name).read_text(f"licenses/{licence}") if licence else None
    return (text or "").strip()


if __name__ == "__main__":
    raise SystemExit(main())
