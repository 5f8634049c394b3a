"""Results for continuous integration: JUnit's XML, and annotations of GitHub Actions."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from .errors import NaConvertError
from .results import WARNING, Figure, Result

SUITE = "na-convert"


def junit(result: Result | None, error: NaConvertError | None) -> bytes:
    """One test case per figure of the ladder; an ``error`` that no figure shows is one more.

    The dialect is that of Jenkins and GitLab: ``testsuites``, ``testsuite``, ``testcase`` with
    ``failure`` or ``error``.
    """
    figures = _figures(result)
    failed = sum(not figure.passed for figure in figures)
    apart = error is not None and not failed
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=SUITE,
        tests=str(len(figures) + apart),
        failures=str(failed),
        errors=str(int(apart)),
        skipped="0",
        time=f"{result.seconds if result else 0:.3f}",
    )
    for figure in figures:
        case = _case(suite, f"{SUITE}.{figure.check}", figure.name)
        message = _plain(_message(figure))
        if figure.passed:
            ElementTree.SubElement(case, "system-out").text = message
        else:
            inner = ElementTree.SubElement(case, "failure", message=message, type="CheckFailed")
            inner.text = _plain(figure.detail)
    if error is not None and apart:
        case, kind = _case(suite, SUITE, "run"), type(error).__name__
        ElementTree.SubElement(case, "error", message=_plain(str(error)), type=kind)
    ElementTree.indent(suites)
    return bytes(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True))


def github(result: Result | None, error: NaConvertError | None, file: Path) -> list[str]:
    """Workflow commands: an error per failed figure, else one for ``error``; a notice if none.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    failed = [figure for figure in _figures(result) if not figure.passed]
    lines = [_command("error", file, figure.name, _message(figure)) for figure in failed]
    if error is not None and not failed:
        lines.append(_command("error", file, SUITE, str(error)))
    advice = _advice(result)
    if advice:
        lines.append(_command("warning", file, f"{SUITE} advice", advice))
    warnings = [n for n in (result.notes if result else ()) if n.startswith(WARNING)]
    lines += [_command("warning", file, SUITE, note.removeprefix(WARNING)) for note in warnings]
    if error is None:
        lines.append(_command("notice", file, SUITE, f"{len(_figures(result))} figures passed"))
    return lines


def _case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=group, name=_plain(name), time="0")


def _figures(result: Result | None) -> tuple[Figure, ...]:
    return result.equivalence.figures if result and result.equivalence else ()


def _message(figure: Figure) -> str:
    ending = "" if figure.passed else f"; a limit of {figure.value:.3g} would have passed"
    return f"{figure.detail} (figure {figure.value:.3g}, limit {figure.limit:.3g}{ending})"


def _plain(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _advice(result: Result | None) -> str:
    said = result.equivalence.diagnosis if result and result.equivalence else None
    return f"first bad layer {said.first_bad!r}: {said.advice}" if said and said.advice else ""


def _command(kind: str, file: Path, title: str, message: str) -> str:
    return f"::{kind} file={_property(str(file))},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
