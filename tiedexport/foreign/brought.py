"""What is asked of a foreign model, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tiedexport.checkpoint import Checkpoint


@dataclass(frozen=True)
class Asked:
    """What the user says of a model that cannot tell everything itself.

    Attributes:
        family: of a bare state dict.
        settings: fields of that family's configuration, as text.
        input_shape: of one item, for a live module.
        samples: a file of inputs for the golden pairs.
    """

    family: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    samples: Path | None = None


@dataclass(frozen=True)
class Brought:
    """A checkpoint, and what the user should know of how it came to be, a line each."""

    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()
