"""The parts that a report is made of, before it becomes HTML or Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tiedexport.report.tables import Table


@dataclass(frozen=True)
class Answer:
    """A question of the first screen, answered by one figure; `mark` as in `Table.marks`."""

    question: str
    figure: str
    detail: str
    mark: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawn figure; `name` is unique in the report, `alt` says what it shows.

    A wide one has a row of the page to itself.
    """

    name: str
    alt: str
    figure: Figure
    wide: bool = False


@dataclass(frozen=True)
class Strip:
    """A row of images as PNG bytes; `name` is unique in the report."""

    name: str
    label: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Reasons:
    """Rows without figures: (status, who, why)."""

    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """A table that a reader may want, but not first."""

    summary: str
    table: Table


Block: TypeAlias = "Table | Chart | Strip | Reasons | Commands | Fold"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and what stands below."""

    title: str
    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    answers: tuple[Answer, ...]
    sections: tuple[Section, ...]
