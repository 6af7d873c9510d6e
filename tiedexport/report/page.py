"""The parts that a report is made of, before it becomes HTML or Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tiedexport.report.charts import Spec
    from tiedexport.report.tables import Table


@dataclass(frozen=True)
class Answer:
    """A question of the first screen, answered by one figure; `mark` as in `Table.marks`.

    `blocks` are pictures that show the answer.
    """

    question: str
    figure: str
    detail: str
    mark: str = ""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart; `name` is unique in the report. A wide one has a row of the page to itself."""

    name: str
    spec: Spec
    wide: bool = False
    label: str = ""

    @property
    def alt(self) -> str:
        """What it shows, in words."""
        return str(self.spec["description"])


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
    """What a reader may want, but not first."""

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Stack:
    """Blocks that stay below one another where the page has several columns."""

    blocks: tuple[Block, ...]


Block: TypeAlias = "Table | Chart | Strip | Reasons | Commands | Fold | Stack"


@dataclass(frozen=True)
class Section:
    """A heading, a sentence or two, and what stands below."""

    title: str
    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report; `advice` is its conclusion in a sentence, if it has one."""

    title: str
    subtitle: str
    answers: tuple[Answer, ...]
    sections: tuple[Section, ...]
    advice: str = ""
