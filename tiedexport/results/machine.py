"""Where a result was obtained."""

from __future__ import annotations

from msgspec import Struct


class Environment(Struct, frozen=True):
    """The machine and versions that a result was obtained with."""

    python: str
    platform: str
    cpu: str
    cores: int
    packages: dict[str, str]
