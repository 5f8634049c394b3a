"""The model that was read, and the file that was written."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelInfo:
    path: str
    sha256: str
    opset: int
    producer: str
    bytes: int = 0
    nodes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputInfo:
    path: str
    bytes: int
    sha256: str
    nodes: dict[str, int] = field(default_factory=dict)
