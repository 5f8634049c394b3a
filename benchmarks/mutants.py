"""How many small faults in `passes/` and the neurons do the tests find?

Mutants are drawn at random (a place, then one of Cosmic Ray's operators there), and each is given
to the tests that run the mutated line: those of the module's own test file first, then the others,
the quickest first, until one fails or the processor time is up. A mutant that no test fails on
counts as survived, also where the time was up; one that a test hangs on for a minute counts as
killed.

The package is loaded once, and each mutant is a fork: where the change lies inside functions, their
code is exchanged, and where it runs on import, the package is loaded again. Tests that fail on a
mutant have to pass without the change, in the same order; else it counts as unsound, not as killed.

    pip install cosmic-ray pytest-cov
    pytest --cov=passes --cov=na_convert.neurons --cov-context=test --junitxml=times.xml
    python benchmarks/mutants.py .coverage times.xml --count 120 --out mutants.json
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import inspect
import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from xml.etree import ElementTree

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from coverage import CoverageData

ROOT = Path(__file__).resolve().parent.parent
FILES = (*sorted((ROOT / "passes").glob("*.py")), ROOT / "na_convert" / "neurons.py")
OF_ALL_MODULES = "tests/test_conventions.py::"
HANGS = 60  # seconds of processor time of one test
MOST_TESTS = 150  # of one mutant
FIRST_TESTS = 12  # in a process of their own: most mutants need no more, and collecting is slow
_NOT_IMPORTED, _NOT_FOUND = 2, 4  # pytest's exit codes
_VERDICTS = {0: "survived", 1: "killed", _NOT_IMPORTED: "killed"}  # others are our fault
_BROKEN = 99


@dataclass(frozen=True)
class Place:
    """Where mutants can be made: lines and columns as in the file; (operator, occurrence) each."""

    file: str
    start: tuple[int, int]
    end: tuple[int, int]
    mutations: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Outcome:
    """One mutant; ``verdict`` is killed, hangs, survived, time, uncovered, unsound, or invalid: not
    Python."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    verdict: str
    tests: int
    seconds: float


def main() -> None:
    given = _arguments()
    chance = random.Random(given.seed)
    places = [place for file in FILES for place in _places(file)]
    print(f"{len(places)} places in {len(FILES)} files", flush=True)
    covered = Covered(given.coverage, given.times)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        copy = _checkout(Path(folder))
        _preload(copy)
        for number, place in enumerate(chance.sample(places, given.count), start=1):
            outcome = _tried(place, covered, copy, given.seconds, chance)
            outcomes.append(outcome)
            print(f"{number}/{given.count} {_line(outcome)}", flush=True)
            if given.out:
                Path(given.out).write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
    _summary(outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("coverage", help="data of a run of the tests with --cov-context=test")
    parser.add_argument("times", help="the junitxml of that run")
    parser.add_argument("--count", type=int, default=120, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=120, help="of processor time, for the tests of one mutant"
    )
    parser.add_argument("--out", help="a JSON file of all mutants")
    return parser.parse_args()


# --- where mutants can be made --------------------------------------------------------------------


def _places(file: Path) -> Iterator[Place]:
    """Those of ``file``, but for annotations, which are never evaluated, `is` for equality, which
    is the same for small numbers, and ``strict=True`` of `zip`, which guards what always holds."""
    source = file.read_text()
    tree, left_out = get_ast(source), _left_out(source)
    found: dict[tuple[tuple[int, int], tuple[int, int]], list[tuple[str, int]]] = {}
    for name in operator_names():
        if name.endswith(("_Is", "_IsNot")) or "Variable" in name:
            continue
        operator = get_operator(name)()
        occurrence = 0
        for node in ast_nodes(tree):
            for start, end in operator.mutation_positions(node):
                if not any(low <= start < high for low, high in left_out):
                    found.setdefault((start, end), []).append((name, occurrence))
                occurrence += 1
    for (start, end), mutations in sorted(found.items()):
        yield Place(str(file.relative_to(ROOT)), start, end, tuple(mutations))


def _left_out(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations and values of ``strict`` stand."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.keyword) and node.arg == "strict":
            found.append(node.value)
    return [
        ((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0))
        for n in found
        if n is not None
    ]


# --- the tests of a place -------------------------------------------------------------------------


class Covered:
    """Which tests run which lines, and for how long."""

    def __init__(self, path: str, times: str) -> None:
        data = CoverageData(path)
        data.read()
        self._tests: dict[str, dict[int, set[str]]] = {}
        self._on_import: dict[str, set[int]] = {}
        self._seconds = _seconds(times)
        self._of_all_modules = {name for name in self._seconds if name.startswith(OF_ALL_MODULES)}
        for measured in data.measured_files():
            contexts = data.contexts_by_lineno(measured)
            lines = {
                line: {name.rpartition("|")[0] for name in names} - {""}  # TEST|run, TEST|setup
                for line, names in contexts.items()
            }
            for file in FILES:
                if measured.endswith(f"/{file.relative_to(ROOT)}"):
                    self._tests[str(file.relative_to(ROOT))] = lines
                    self._on_import[str(file.relative_to(ROOT))] = {
                        line for line, names in contexts.items() if "" in names
                    }

    def on_import(self, place: Place) -> bool:
        """Whether ``place`` runs when its module is loaded."""
        lines = range(place.start[0], place.end[0] + 1)
        return not self._on_import.get(place.file, set()).isdisjoint(lines)

    def tests(self, place: Place) -> list[str]:
        """Those that run a line of ``place``; where it runs on import, those that run its file, and
        those of what holds for every module."""
        lines = self._tests.get(place.file, {})
        places = range(place.start[0], place.end[0] + 1)
        here = [lines[n] for n in places if n in lines]
        found = set().union(*here)
        if here and not set(places) & _inside_functions(place.file):
            found = set().union(*lines.values(), self._of_all_modules)
        own = (f"tests/test_{Path(place.file).stem}.py::", OF_ALL_MODULES)
        tests = sorted(found, key=lambda t: (not t.startswith(own), self._seconds.get(t, 0), t))
        return tests[:MOST_TESTS]


@cache
def _inside_functions(file: str) -> set[int]:
    """Lines that do not run on import."""
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.Lambda)]
    bodies = [n.body if isinstance(n.body, list) else [n.body] for n in functions]
    return {
        line
        for body in bodies
        for line in range(body[0].lineno, (body[-1].end_lineno or body[-1].lineno) + 1)
    }


def _seconds(times: str) -> dict[str, float]:
    """Of each test, by its name as pytest writes it; tests are functions of modules here."""
    cases = ElementTree.parse(times).iter("testcase")
    return {
        f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}": float(
            case.attrib["time"]
        )
        for case in cases
    }


# --- one mutant -----------------------------------------------------------------------------------


def _checkout(folder: Path) -> Path:
    """A copy of what git tracks, for mutants to be made in."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
    return folder


def _tried(
    place: Place, covered: Covered, copy: Path, seconds: float, chance: random.Random
) -> Outcome:
    operator, occurrence = chance.choice(place.mutations)
    target = copy / place.file
    source = target.read_text()
    mutant = mutate_code(source, get_operator(operator)(), occurrence)
    before, after = _difference(source, mutant)
    tests = covered.tests(place)
    start = time.monotonic()
    verdict = "uncovered" if _compiles(mutant) else "invalid"
    if tests and verdict != "invalid":
        written = target.stat().st_mtime
        try:
            target.write_text(mutant)
            os.utime(target, (written + 2, written + 2))  # so that no stale .pyc is taken for it
            changed = None
            if not covered.on_import(place):
                changed = _changed(source, mutant, str(target))
            verdict, last = _run(tests, copy, seconds, changed)
        finally:
            target.write_text(source)
            os.utime(target, (written + 4, written + 4))
        if verdict == "killed" and _part(last, copy, seconds, [])[0] != "survived":
            verdict = "unsound"
    took = time.monotonic() - start
    line, name = place.start[0], operator.rpartition("/")[2]
    return Outcome(place.file, line, name, before, after, verdict, len(tests), took)


def _compiles(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _difference(before: str, after: str) -> tuple[str, str]:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("", ""))


def _preload(copy: Path) -> None:
    """The package and what the tests import, once: each mutant's process is a fork of this one."""
    import hypothesis  # noqa: F401
    import onnxruntime  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401

    os.environ["PYTHONPATH"] = str(copy)
    sys.path[:] = [str(copy), *(p for p in sys.path if Path(p).resolve() != ROOT)]
    sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in repr(f)]
    for name in ("na_convert.api", "na_convert.cli", "na_convert.passes"):
        package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


Changed = list[tuple[CodeType, CodeType]] | None  # functions, before and after; None: not only they


def _changed(source: str, mutant: str, path: str) -> Changed:
    """The functions of a module that a change lies inside, those inside other functions too."""
    found: list[tuple[CodeType, CodeType]] = []

    def compare(before: CodeType, after: CodeType, inside: bool) -> bool:
        if not inside and not _same_but_nested(before, after):
            return False
        pairs = list(zip(_nested(before), _nested(after), strict=False))
        if inside and (before.co_freevars != after.co_freevars or _names(before) != _names(after)):
            return False
        for old, new in pairs:
            if old == new:
                continue
            is_function = bool(old.co_flags & inspect.CO_OPTIMIZED)
            if (
                is_function
                and not inside
                and old.co_name.startswith("<")
                and "lambda" not in old.co_name
            ):
                return False  # a comprehension that runs on import
            if is_function:
                found.append((old, new))
            if not compare(old, new, inside or is_function):
                return False
        return True

    whole = compare(compile(source, path, "exec"), compile(mutant, path, "exec"), False)
    return found if whole else None


def _names(code: CodeType) -> list[str]:
    return [c.co_name for c in _nested(code)]


def _nested(code: CodeType) -> list[CodeType]:
    return [c for c in code.co_consts if isinstance(c, CodeType)]


def _same_but_nested(before: CodeType, after: CodeType) -> bool:
    def rest(code: CodeType) -> object:
        others = tuple(c for c in code.co_consts if not isinstance(c, CodeType))
        types = tuple(type(c) for c in others)  # 1 == True
        return code.co_code, others, types, code.co_names, code.co_varnames, len(_nested(code))

    return rest(before) == rest(after)


def _exchange(changed: Changed) -> None:
    """Let the loaded package be the mutant."""
    if changed is None:
        for name in [n for n in sys.modules if n.partition(".")[0] == "na_convert"]:
            del sys.modules[name]
        return
    functions = [f for f in gc.get_objects() if type(f) is FunctionType]
    exchanged = 0
    for before, after in changed:
        for function in functions:
            if function.__code__ == before and _file(function.__code__) == _file(before):
                function.__code__ = after
                exchanged += 1
    if changed and not exchanged:
        raise LookupError(changed[0][0].co_qualname)


def _file(code: CodeType) -> str:
    return os.path.realpath(code.co_filename)


def _run(tests: list[str], copy: Path, seconds: float, changed: Changed) -> tuple[str, list[str]]:
    """The verdict of ``tests``, and those of one process up to the one that gave it."""
    parts = [part for part in (tests[:FIRST_TESTS], tests[FIRST_TESTS:]) if part]
    for part in parts:
        verdict, took = _part(part, copy, seconds, changed)
        if verdict != "survived":
            break
        seconds -= took
    last = (copy / "progress").read_text()
    return verdict, part[: part.index(last) + 1] if last in part else part[:1]


def _part(tests: list[str], copy: Path, seconds: float, changed: Changed) -> tuple[str, float]:
    """The verdict of ``tests``, and the processor time they took, at most ``seconds``."""
    progress = copy / "progress"
    progress.write_text("")
    child = os.fork()
    if child == 0:
        _test(tests, copy, progress, changed)
    last, took, since, begun = "", 0.0, 0.0, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code not in _VERDICTS:
                raise RuntimeError(f"pytest ended with {code}: {' '.join(tests)}")
            return _VERDICTS[code], took
        took = _processor_seconds(child)
        text = progress.read_text()
        if text != last:
            last, since, begun = text, took, time.monotonic()
        hangs = took - since > HANGS or time.monotonic() - begun > 10 * HANGS
        if hangs or took > seconds:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs" if hangs else "time", took
        time.sleep(0.05)


def _processor_seconds(process: int) -> float:
    """Of the process and of children it has waited for; unlike time, the same on a busy machine."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(n) for n in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _test(tests: list[str], copy: Path, progress: Path, changed: Changed) -> None:
    """In the child: run ``tests`` on the copy, up to the first that fails; never returns."""
    import pytest

    class Progress:
        collected = True

        def pytest_runtest_logstart(self, nodeid: str) -> None:
            progress.write_text(nodeid)

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            self.collected = self.collected and not report.failed

    os.setsid()
    os.chdir(copy)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code = _BROKEN
    try:
        _exchange(changed)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "", "--no-header", "--no-cov"]
        watched = Progress()
        code = int(pytest.main([*options, *tests], plugins=[watched]))
        if code == _NOT_FOUND and not watched.collected:
            code = _NOT_IMPORTED  # a test was not found since its module fails on import
    finally:
        os._exit(code)


# --- the result -----------------------------------------------------------------------------------


def _line(outcome: Outcome) -> str:
    place = f"{outcome.file}:{outcome.line}"
    took = f"{outcome.tests} tests, {outcome.seconds:.0f} s"
    if outcome.verdict in ("killed", "hangs"):
        return f"{outcome.verdict:9} {place} {outcome.operator} ({took})"
    change = f"    - {outcome.before}\n    + {outcome.after}"
    return f"{outcome.verdict:9} {place} {outcome.operator} ({took})\n{change}"


def _summary(outcomes: list[Outcome]) -> None:
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    killed = verdicts["killed"] + verdicts["hangs"]
    count = len(outcomes) - verdicts["invalid"]
    print(dict(verdicts))
    print(f"killed {killed} of {count}: {100 * killed / max(count, 1):.1f} %")


if __name__ == "__main__":
    main()
