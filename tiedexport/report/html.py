"""A page as one self-contained HTML file."""

from __future__ import annotations

import base64
from functools import singledispatch
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from tiedexport.report import pictures
from tiedexport.report.page import Chart, Commands, Fold, Reasons, Strip
from tiedexport.report.tables import Table

if TYPE_CHECKING:
    from tiedexport.report.page import Answer, Page, Section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Tells the browser to load nothing, from nowhere."""

_SYMBOLS = {"passed": "✓", "failed": "✗", "not run": "–"}


class Html(str):
    """Text that is HTML already; every other string is escaped by `tag`."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element; children that are not `Html` and all attribute values are escaped."""
    opening = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    inner = "".join(child if isinstance(child, Html) else escape(child) for child in children)
    return Html(f"<{name}{opening}>{inner}</{name}>")


def document(page: Page) -> str:
    """The page with its style and pictures inside; it asks the network for nothing."""
    style = (files("tiedexport.report") / "style.css").read_text("utf-8")
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", f"{page.title}: tiedexport report"),
        tag("style", Html(style)),
    )
    header = tag("header", tag("h1", page.title), tag("p", page.subtitle))
    answers = tag("ul", *map(_answer, page.answers), class_="answers")
    main = tag("main", header, answers, *map(_section, page.sections))
    return f"<!doctype html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _answer(answer: Answer) -> Html:
    symbol = _SYMBOLS.get(answer.mark)
    mark = (tag("span", symbol, aria_hidden="true"), " ") if symbol else ()
    return tag(
        "li",
        tag("h2", answer.question),
        tag("p", *mark, answer.figure, class_="figure"),
        tag("p", answer.detail),
        class_=answer.mark.replace(" ", "-"),
    )


def _section(section: Section) -> Html:
    blocks = map(_block, section.blocks)
    return tag("section", tag("h2", section.title), tag("p", section.text), *blocks)


@singledispatch
def _block(block: object) -> Html:
    raise TypeError(f"no HTML for {type(block).__name__}")


@_block.register(Table)
def _table(table: Table) -> Html:
    def cells(name: str, values: tuple[str, ...], **attributes: str) -> Html:
        return tag(
            "tr",
            *(
                tag(name, value, class_="number" if column >= table.first_number else "")
                for column, value in enumerate(values)
            ),
            **attributes,
        )

    marks = table.marks or ("",) * len(table.rows)
    rows = (
        cells("td", row, class_=mark.replace(" ", "-"))
        for row, mark in zip(table.rows, marks, strict=True)
    )
    caption = (tag("caption", table.title),) if table.title else ()
    head = tag("thead", cells("th", table.headers, scope="col"))
    inner = tag("table", *caption, head, tag("tbody", *rows))
    width = "wide broad" if table.wide else "wide"
    return tag("div", inner, class_=width, tabindex="0", role="region", aria_label="table")


@_block.register(Chart)
def _chart(chart: Chart) -> Html:
    drawing = pictures.svg(chart.figure, chart.name)
    opening = f'<svg class="chart" role="img" aria-label="{escape(chart.alt)}"'
    role = "chart broad" if chart.wide else "chart"
    return tag("figure", Html(drawing.replace("<svg", opening, 1)), class_=role)


@_block.register(Strip)
def _strip(strip: Strip) -> Html:
    source = "data:image/png;base64," + base64.b64encode(strip.png).decode("ascii")
    image = Html(f'<img src="{source}" alt="{escape(strip.alt)}">')
    role = "strip first" if strip.name == "originals" else "strip"
    return tag("figure", tag("figcaption", strip.label), image, class_=role)


@_block.register(Reasons)
def _reasons(reasons: Reasons) -> Html:
    items = (
        tag(
            "li",
            tag("strong", who),
            f" {status}: ",
            tag("span", why),
            class_=status.replace(" ", "-"),
        )
        for status, who, why in reasons.rows
    )
    return tag("ul", *items, class_="reasons")


@_block.register(Commands)
def _commands(commands: Commands) -> Html:
    return tag("pre", tag("code", "\n".join(commands.lines)))


@_block.register(Fold)
def _fold(fold: Fold) -> Html:
    return tag("details", tag("summary", fold.summary), _table(fold.table))
