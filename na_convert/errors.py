"""Every error a user can meet, each one line: where, why, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import Refusal, Result


class NaConvertError(Exception):
    """Base of all errors that are the user's to read.

    Attributes:
        message: one line: what is wrong, and where.
        node: the ONNX node or tensor it is about, or None.
        remedy: what to do about it, or None.
        exit_code: 2 for usage and unreadable input, 1 for what cannot be converted or verified.
    """

    exit_code = 1

    def __init__(self, message: str, *, node: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


class UsageError(NaConvertError):
    """An argument, option or file that cannot be used as it is."""

    exit_code = 2


class ModelError(UsageError):
    """A model file that cannot be read, or that is no valid ONNX model."""


class DoesNotRun(ModelError):
    """A graph, the model's or one made of it, that an engine does not take."""


class DataError(UsageError):
    """Data that cannot be read, or that does not fit the model's inputs."""


SEE_TABLE = "see the table: each is named with the reason and what to do"


class NotConvertible(NaConvertError):
    """A valid model that cannot become an SNN; `refused` names every offending node.

    Where there are such, the remedy points to their table by default.
    """

    def __init__(
        self,
        message: str,
        *,
        refused: tuple[Refusal, ...] = (),
        node: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, node=node, remedy=remedy or (SEE_TABLE if refused else None))
        self.refused = refused


class CheckFailed(NaConvertError):
    """A verification step whose figure breaks its limit; nothing is written.

    `result` holds everything measured up to then, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        result: Result | None = None,
        node: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, node=node, remedy=remedy)
        self.result = result


class PassFailed(NaConvertError):
    """A pass that left the graph invalid or changed its numbers: a defect of na-convert."""


class Interrupted(NaConvertError):
    """The user stopped a run (Ctrl-C), or SIGTERM did."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of what ``error`` says; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
