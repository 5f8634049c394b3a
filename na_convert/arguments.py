"""What the command line is given: which command is meant, and values checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from .errors import Interrupted, UsageError


class DefaultCommandGroup(TyperGroup):
    """A group in which a bare path means its first command; options may come before the command."""

    program = "na-convert"
    see_also = "na-convert COMMAND --help, na-convert --version"

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        meant = with_command(args, list(self.commands), self._takes_value(), self.program)
        return super().parse_args(ctx, meant)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; Ctrl-C as our own error, since typer would exit without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as found:
            raise Interrupted("stopped") from found

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """The help of the default, since that is what the bare command does, then the others."""
        default = next(iter(self.commands.values()))
        inner = typer.Context(
            default, info_name=ctx.info_name, help_option_names=ctx.help_option_names
        )
        default.format_help(inner, formatter)
        self.format_commands(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(f"See also: {self.see_also}")

    def _takes_value(self) -> dict[str, bool]:
        """Every option of every command, and whether a value follows it."""
        return {
            name: not getattr(parameter, "is_flag", False)
            for command in self.commands.values()
            for parameter in command.params
            for name in parameter.opts
            if name.startswith("-")
        }


def with_command(
    args: Sequence[str],
    commands: Sequence[str],
    takes_value: Mapping[str, bool],
    program: str = "na-convert",
) -> list[str]:
    """``args`` with the command in front: the one named in them, or the first of ``commands``.

    Raises UsageError where the first word is neither a command nor anything like a file.
    """
    at = first_positional(args, takes_value)
    if at is None:
        of_group = any(arg in ("--help", "-h", "--version") for arg in args)
        return list(args) if of_group else [commands[0], *args]
    word = args[at]
    if word in commands:
        return [word, *args[:at], *args[at + 1 :]]
    path = Path(word)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return [commands[0], *args]
    similar = get_close_matches(word, commands, n=1)
    remedy = f"did you mean `{program} {similar[0]}`?" if similar else f"see {program} --help"
    raise UsageError(f"{word}: no such command, and no such file", remedy=remedy)


def first_positional(args: Sequence[str], takes_value: Mapping[str, bool]) -> int | None:
    """The index of the first argument that is neither an option nor an option's value."""
    skip = False
    for index, arg in enumerate(args):
        if skip:
            skip = False
        elif arg == "--":
            return index + 1 if index + 1 < len(args) else None
        elif arg.startswith("--"):
            skip = "=" not in arg and takes_value.get(arg, False)
        elif arg.startswith("-") and len(arg) > 1:
            skip = takes_value.get(f"-{arg[-1]}", False) and not _attached(arg, takes_value)
        else:
            return index
    return None


def _attached(arg: str, takes_value: Mapping[str, bool]) -> bool:
    """Whether a group of short options holds its value itself, as in ``-T4``."""
    return any(takes_value.get(f"-{letter}", False) for letter in arg[1:-1])


# --- files ----------------------------------------------------------------------------------------


def existing_file(path: Path | None) -> None:
    """Raises UsageError where ``path`` is given and is no file."""
    if path is None or path.is_file():
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a folder", remedy="give a file")
    raise UsageError(f"{path}: no such file")


def existing_data(path: Path | None) -> None:
    """Raises UsageError where ``path`` is given, and is no file and no folder that holds any."""
    if path is None or path.is_file() or (path.is_dir() and any(path.iterdir())):
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a folder with nothing in it")
    raise UsageError(f"{path}: no such file")


def writable_files(outputs: Mapping[str, Path | None], inputs: Sequence[Path | None]) -> None:
    """``outputs`` by option; what is None was not given.

    Raises UsageError where one cannot be written, is one of the ``inputs`` or a file in a folder
    that is one, or is another output.
    """
    taken: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{option} {path}: is a folder", remedy="give the name of a file")
        if not path.parent.is_dir():
            raise UsageError(
                f"{option} {path}: no such folder {path.parent}", remedy="create it first"
            )
        place = path.resolve()
        if any(given is not None and _holds(given.resolve(), place) for given in inputs):
            raise UsageError(f"{option} {path}: would overwrite the input", remedy="choose another")
        if place in taken:
            raise UsageError(f"{option} {path}: is what {taken[place]} names, too")
        taken[place] = option


def _holds(given: Path, place: Path) -> bool:
    """Whether the file ``place`` is ``given``, or is there in the folder ``given``."""
    if not place.exists():
        return False
    return place.samefile(given) or (given.is_dir() and given in place.parents)


# --- words ----------------------------------------------------------------------------------------


def one_of(value: str, option: str, choices: Sequence[str]) -> str:
    """Raises UsageError where ``value`` is not among ``choices``."""
    if value in choices:
        return value
    similar = get_close_matches(value, choices, n=1)
    remedy = f"did you mean {similar[0]}?" if similar else f"choose from {', '.join(choices)}"
    raise UsageError(f"{option} {value}: no such choice", remedy=remedy)


# --- numbers --------------------------------------------------------------------------------------


def one_timestep(text: str | None) -> int | None:
    """A number of time steps; raises UsageError where it is none, or several."""
    if text is None:
        return None
    steps = several_timesteps(text)
    if len(steps) > 1:
        raise UsageError(f"-T {text}: one number is needed here", remedy="`check` takes several")
    return steps[0]


def several_timesteps(text: str | None) -> tuple[int, ...]:
    """Comma-separated numbers of time steps, in rising order."""
    try:
        steps = sorted({int(part) for part in text.split(",")}) if text is not None else []
    except ValueError:
        raise UsageError(f"-T {text}: not a whole number of time steps") from None
    if steps and steps[0] < 1:
        raise UsageError(f"-T {text}: at least one time step is needed")
    return tuple(steps)


def at_least(value: int | None, least: int, option: str) -> None:
    """Raises UsageError where ``value`` is given and below ``least``."""
    if value is not None and value < least:
        raise UsageError(f"{option} {value}: at least {least} is needed")


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Comma-separated numbers or fractions such as ``1/255``."""
    if text is None:
        return None
    try:
        return tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UsageError(f"{option} {text}: not a number, nor numbers with commas") from None


def sizes(text: str | None, option: str) -> tuple[int, ...] | None:
    """One length in pixels, or height and width."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise UsageError(f"{option} {text}: one number of pixels is needed, or height,width")
    return tuple(int(part) for part in parts)


def fraction(text: str | None, option: str) -> float | None:
    """A share from 0 to 1."""
    values = numbers(text, option)
    if values is None:
        return None
    if len(values) > 1 or not 0 <= values[0] <= 1:
        raise UsageError(f"{option} {text}: a fraction from 0 to 1 is needed")
    return values[0]
