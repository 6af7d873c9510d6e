"""A page as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from functools import singledispatch
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from tiedexport.report import charts
from tiedexport.report.page import Chart, Commands, Fold, Reasons, Stack, Strip
from tiedexport.report.tables import Table

if TYPE_CHECKING:
    from tiedexport.report.page import Answer, Page, Section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {scripts}"
"""Tells the browser to load nothing, from nowhere, and to run the two scripts of the page only."""

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
    """The page with its style, scripts and pictures inside; it asks the network for nothing.

    Every chart is there as a still drawing, which a script replaces with a live one: without
    scripts, and in print, nothing is missing.
    """
    here = files("tiedexport.report")
    style = (here / "style.css").read_text("utf-8")
    main = tag(
        "main",
        tag("header", tag("h1", page.title), tag("p", page.subtitle)),
        *_advice(page.advice),
        tag("ul", *map(_answer, page.answers), class_=_answers_class(page)),
        *map(_section, page.sections),
    )
    scripts: list[str] = []
    if 'class="live"' in main:
        start = (here / "charts.js").read_text("utf-8")
        scripts = [charts.vega(), f"const config = {charts.live_config()};\n{start}"]
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    policy = escape(_POLICY.format(scripts=allowed))
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", f"{page.title}: tiedexport report"),
        tag("style", Html(style)),
    )
    body = tag("body", main, *(tag("script", Html(script)) for script in scripts))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _advice(advice: str) -> tuple[Html, ...]:
    return (tag("p", tag("strong", "What to deploy: "), advice, class_="advice"),) * bool(advice)


def _answers_class(page: Page) -> str:
    """Answers with pictures have a column each of the first screen."""
    return "answers pictured" if any(answer.blocks for answer in page.answers) else "answers"


def _answer(answer: Answer) -> Html:
    symbol = _SYMBOLS.get(answer.mark)
    mark = (tag("span", symbol, aria_hidden="true"), " ") if symbol else ()
    return tag(
        "li",
        tag("h2", answer.question),
        tag("p", *mark, answer.figure, class_="figure"),
        tag("p", answer.detail),
        *map(_block, answer.blocks),
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
    return tag(
        "div", inner, class_=width, tabindex="0", role="region", aria_label=table.title or "table"
    )


@_block.register(Chart)
def _chart(chart: Chart) -> Html:
    opening = f'<svg role="img" aria-label="{escape(chart.alt)}"'
    still = charts.svg(chart.spec, chart.name).replace("<svg", opening, 1)
    spec = Html(charts.live(chart.spec))
    return tag(
        "figure",
        *((tag("figcaption", chart.label),) if chart.label else ()),
        tag("div", Html(still), class_="live"),
        tag("script", spec, type="application/json"),
        class_="chart broad" if chart.wide else "chart",
        tabindex="0" if chart.wide else "",
    )


@_block.register(Strip)
def _strip(strip: Strip) -> Html:
    source = "data:image/png;base64," + base64.b64encode(strip.png).decode("ascii")
    image = Html(f'<img src="{source}" alt="{escape(strip.alt)}">')
    return tag("figure", tag("figcaption", strip.label), image, class_="strip")


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
    return tag("pre", tag("code", "\n".join(commands.lines)), tabindex="0")


@_block.register(Fold)
def _fold(fold: Fold) -> Html:
    return tag("details", tag("summary", fold.summary), *map(_block, fold.blocks))


@_block.register(Stack)
def _stack(stack: Stack) -> Html:
    return tag("div", *map(_block, stack.blocks), class_="stack")
