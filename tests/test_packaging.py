"""The repository as others meet it: README's set-up commands, installation, configuration."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.version import Version

import na_convert

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
NOT_COPIED = (".git", ".venv", "build", "runs", "*.egg-info", "__pycache__", ".*_cache")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


INSTALL_AND_CONVERT, INSTALL_AND_TEST = (block.strip() for block in blocks("sh")[:2])


def run(command: list[str], folder: Path, timeout: int = 300) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# --- the README -----------------------------------------------------------------------------------


def test_ci_runs_the_command_of_the_readme() -> None:
    commands = [
        line
        for line in (ROOT / ".ci/run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands == [INSTALL_AND_TEST]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_both_set_up_commands_are_one_line() -> None:
    assert "\n" not in INSTALL_AND_CONVERT
    assert "\n" not in INSTALL_AND_TEST


def test_documented_options_are_those_of_the_command() -> None:
    documented = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs/cli.md").read_text()))
    offered = {"--version"}
    for command in ("convert", "inspect", "check", "simulate", "export", "view"):
        shown = run([sys.executable, "-m", "na_convert", command, "--help"], ROOT)
        offered |= set(re.findall(r"(--[a-z-]+)", shown))
    assert documented == offered


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = {name.rstrip("/") for name in re.findall(r"`([a-z_/]+\*?)`", text)}
    prefixes = tuple(name[:-1] for name in re.findall(r"`([a-z_]+\*)`", text))
    for path in sorted((ROOT / "na_convert").iterdir()):
        name = path.stem
        if name.startswith("_") or (path.suffix not in ("", ".py")):
            continue
        assert name in named or name.startswith(prefixes), f"{name} is not in architecture.md"


def test_nir_files_are_written_without_the_readers() -> None:
    """`nir_readers` imports `nir_file`, never the other way round."""
    for path in sorted((ROOT / "na_convert/nir_file").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "nir_readers" not in ast.unparse(node), f"{path.name}: {ast.unparse(node)}"


def test_everything_that_is_defined_is_used() -> None:
    """By the code, the pages' generator or a benchmark: what only tests call is dead."""
    code = [path for folder in ("na_convert", "passes", "models") for path in _modules(folder)]
    users = [*code, *_modules("docs"), *_modules("benchmarks"), ROOT / "pyproject.toml"]
    words = Counter(word for path in users for word in re.findall(r"\w+", path.read_text()))
    unused = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in code
        for node in ast.parse(path.read_text()).body
        for name in _defined(node)
        if words[name] == 1
    ]
    assert unused == []


def _modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _defined(node: ast.stmt) -> list[str]:
    """What a statement of a module defines, but for what Python or a decorator calls."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.FunctionDef):
        return [] if node.decorator_list or node.name.startswith("__") else [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


# --- installation ---------------------------------------------------------------------------------


def test_every_package_is_listed() -> None:
    listed = re.search(r"^packages = (\[.*?\])$", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert listed is not None
    found = {"na_convert.passes", "na_convert.models", "na_convert"}
    found |= {f"na_convert.{p.parent.name}" for p in ROOT.glob("na_convert/*/__init__.py")}
    for top in ("passes", "models"):
        found |= {f"na_convert.{top}.{p.parent.name}" for p in ROOT.glob(f"{top}/*/__init__.py")}
    assert set(json.loads(listed[1])) == found


def test_the_oldest_versions_are_those_that_pyproject_allows() -> None:
    allowed = tomllib.loads(PYPROJECT)["project"]["dependencies"]
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    expected = [line.split(">=") for line in allowed]
    assert {n: Version(v) for n, v in pinned} == {n: Version(v) for n, v in expected}


def test_importing_the_package_is_light() -> None:
    code = "import sys, na_convert; sys.exit('onnx' in sys.modules or 'numpy' in sys.modules)"
    run([sys.executable, "-c", code], ROOT)


@pytest.mark.parametrize("where", ["elsewhere", ".", "na_convert", "passes"])
def test_it_runs_from_any_folder(tmp_path: Path, where: str) -> None:
    folder = tmp_path if where == "elsewhere" else ROOT / where
    shown = run([sys.executable, "-m", "na_convert", "--version"], folder)
    assert shown == f"na-convert {na_convert.__version__}\n"


def test_imports_have_no_side_effects(tmp_path: Path) -> None:
    """Of all but training and extras: no files, signals, filters, handlers, threads, settings."""
    code = """
import logging, os, signal, sys, threading, warnings
import numpy, onnx, onnx_graphsurgeon, onnxruntime, rich, typer
def state():
    return dict(
        environment=dict(os.environ), filters=list(warnings.filters), folder=os.getcwd(),
        signals=[signal.getsignal(s) for s in signal.valid_signals()], hook=sys.excepthook,
        handlers=list(logging.root.handlers), threads=threading.active_count(),
        errors=numpy.geterr(), stdout=sys.stdout, recursion=sys.getrecursionlimit())
before = state()
import importlib
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:  # an extra that is not installed
        assert "na_convert" not in str(error.name), error
after = state()
changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
assert not changed, changed
"""
    folders = [ROOT / "na_convert", ROOT / "na_convert/forms", ROOT / "passes"]
    files = [file for folder in folders for file in folder.glob("*.py")]
    inside = [f.relative_to(ROOT).with_suffix("") for f in files if f.stem != "__main__"]
    names = [".".join(path.parts).removesuffix(".__init__") for path in inside]
    names = [f"na_convert.{n}" if n.startswith("passes") else n for n in names]
    run([sys.executable, "-B", "-c", code, *sorted(names)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_version_is_in_the_changelog() -> None:
    assert f"## {na_convert.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.network
def test_install_and_convert_command(tmp_path: Path) -> None:
    """The README's first command on a copy of the repository, with nothing installed."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["sh", "-c", INSTALL_AND_CONVERT], cwd=copy, env=kept, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all checks passed" in done.stdout
    assert (copy / "examples/resnet8-cifar10.snn.onnx").is_file()
    (site,) = (copy / ".venv").glob("lib/python*/site-packages")
    assert (site / "na_convert/passes/__init__.py").is_file()
    assert (site / "na_convert/models/__init__.py").is_file()
    assert (site / "na_convert/py.typed").is_file()
    for stray in ("passes", "models", "tests", "torch"):
        assert not (site / stray).exists()
