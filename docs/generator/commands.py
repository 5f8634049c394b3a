"""docs/reference-cli.md: every command, argument and option, from the programs themselves."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

import typer

from .markdown import code, page, plain, table, text_of


def commands_page() -> str:
    from na_convert.models import cli as training

    from na_convert import cli

    return page(
        "Command line reference",
        _INTRODUCTION,
        *_program("na-convert", cli.app),
        *_program("na-train", training.app),
    )


_INTRODUCTION = cleandoc("""
    What `--help` of each command says. [cli.md](cli.md) explains the options of `na-convert`, exit
    codes, and files; [training.md](training.md) those of `na-train`. The first command of each
    program is what a bare path means.
""")


def _program(name: str, app: typer.Typer) -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        yield f"## {name} {command.name}"
        yield plain(cleandoc(command.help or ""))
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        words = " ".join(_metavar(p) for p in arguments)
        yield f"```text\n{name} {command.name} [OPTIONS] {words}\n```"
        yield table(
            ("argument or option", "value", "help", "default"),
            [_row(p) for p in (*arguments, *options)],
        )


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _row(parameter: Any) -> tuple[str, ...]:
    flag = getattr(parameter, "is_flag", False)
    if parameter.param_type_name == "argument":
        names, value = code(_metavar(parameter)), "file"
    else:
        names = ", ".join(code(n) for n in (*parameter.opts, *parameter.secondary_opts))
        value = "" if flag else code(_metavar(parameter))
    return names, value, text_of(parameter.help or ""), _default(parameter)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    default = parameter.default
    if default is None or default is False:
        return ""
    if default is True:
        return code(parameter.opts[0])
    return code(f"{default:g}" if isinstance(default, float) else str(default))
