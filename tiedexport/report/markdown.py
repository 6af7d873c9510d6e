"""A page as Markdown with PNGs in a folder beside it, for a pull request."""

from __future__ import annotations

import re
from functools import singledispatch
from typing import TYPE_CHECKING
from urllib.parse import quote

from tiedexport import atomic
from tiedexport.report import charts
from tiedexport.report.page import Chart, Commands, Fold, Reasons, Stack, Strip
from tiedexport.report.tables import Table

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.report.page import Page


def write(page: Page, path: Path) -> None:
    """Write `path` and its pictures, which go into the folder `<stem>-pictures`."""
    folder = path.with_name(f"{path.stem}-pictures")
    answers = Table(
        ("question", "answer", ""),
        tuple((answer.question, answer.figure, answer.detail) for answer in page.answers),
        first_number=3,
    )
    parts = [f"# {text(page.title)}", text(page.subtitle), _block(answers, folder)]
    parts += [f"**What to deploy:** {text(page.advice)}"] if page.advice else []
    for answer in page.answers:
        parts += [_block(block, folder) for block in answer.blocks]
    for section in page.sections:
        parts += [f"## {text(section.title)}", text(section.text)]
        parts += [_block(block, folder) for block in section.blocks]
    atomic.write(path, ("\n\n".join(parts) + "\n").encode())


def text(plain: str) -> str:
    """Plain text on one line, with everything that Markdown or HTML would read escaped."""
    one_line = " ".join(plain.split())
    escaped = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@singledispatch
def _block(block: object, folder: Path) -> str:
    raise TypeError(f"no Markdown for {type(block).__name__}")


@_block.register(Table)
def _table(table: Table, folder: Path) -> str:
    rule = ["---" if n < table.first_number else "--:" for n in range(len(table.headers))]
    rows = [[text(cell) for cell in row] for row in (table.headers, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
    title = [f"**{text(table.title)}**", ""] if table.title else []
    return "\n".join([*title, *lines])


@_block.register(Chart)
def _chart(chart: Chart, folder: Path) -> str:
    image = _image(folder, chart.name, chart.alt, charts.png(chart.spec))
    return f"{text(chart.label)}\n\n{image}" if chart.label else image


@_block.register(Strip)
def _strip(strip: Strip, folder: Path) -> str:
    image = _image(folder, strip.name, strip.alt, strip.png)
    return f"{text(strip.label)}\n\n{image}"


def _image(folder: Path, name: str, alt: str, png: bytes) -> str:
    file = folder / f"{name}.png"
    atomic.write(file, png)
    return f"![{text(alt)}]({quote(folder.name)}/{quote(file.name)})"


@_block.register(Reasons)
def _reasons(reasons: Reasons, folder: Path) -> str:
    return "\n".join(
        f"- **{text(who)}** {text(status)}: {text(why)}" for status, who, why in reasons.rows
    )


@_block.register(Commands)
def _commands(commands: Commands, folder: Path) -> str:
    code = "\n".join(commands.lines)
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{code}\n{fence}"


@_block.register(Fold)
def _fold(fold: Fold, folder: Path) -> str:
    summary = f"<details><summary>{text(fold.summary)}</summary>"
    inner = "\n\n".join(_block(block, folder) for block in fold.blocks)
    return f"{summary}\n\n{inner}\n\n</details>"


@_block.register(Stack)
def _stack(stack: Stack, folder: Path) -> str:
    return "\n\n".join(_block(block, folder) for block in stack.blocks)
