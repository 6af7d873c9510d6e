"""The directive `records`: sections on msgspec records, drawn from the records themselves.

Its lines name records, or as `package.*` all of a package that have a schema number. A section is
made for each of them and for each that their fields hold, with the fields' types as they are in
JSON, and with what the docstring says of them. With `:untitled:` those that it names go without a
heading of their own.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sphinx.application import Sphinx

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_FIELD = re.compile(r"^    (\w[\w, ]*): (.*(?:\n      .*)*)", re.MULTILINE)
_FIELDS = "\nAttributes:\n"


class Records(SphinxDirective):
    """What records hold."""

    has_content = True
    option_spec: ClassVar[dict[str, Callable[[str], Any]]] = {"untitled": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        untitled = "untitled" in self.options
        found = (
            record for line in self.content for word in line.split() for record in _named(word)
        )
        records = {record.__name__: record for record in found}
        for name, record in records.items():
            if not untitled:  # a type in a signature leads here
                path = f"{record.__module__}.{name}"
                self.env.domains.python_domain.note_object(path, "class", _anchor(name))
        _, schemas = msgspec.json.schema_components(records.values(), ref_template="{name}")
        made: list[nodes.Node] = []
        for name, schema in schemas.items():
            content = self._content(schema, records.get(name))
            if untitled and name in records:
                made += content
            else:
                title = nodes.title("", "", nodes.literal("", name))
                made.append(nodes.section("", title, *content, ids=[_anchor(name)]))
        return made

    def _content(self, schema: dict[str, Any], record: type | None) -> list[nodes.Node]:
        text = inspect.cleandoc(schema.get("description", ""))
        prose = text.partition(_FIELDS)[0].strip()
        content: list[nodes.Node] = [
            nodes.paragraph("", "", *_inline(paragraph)) for paragraph in prose.split("\n\n")
        ]
        if "enum" in schema:
            content.append(nodes.paragraph("", "", nodes.Text("One of "), *_type(schema)))
        members = nodes.definition_list()
        inherited = [inspect.getdoc(base) or "" for base in inspect.getmro(record or object)]
        meanings = dict(pair for doc in reversed([text, *inherited]) for pair in _meanings(doc))
        for name, of in schema.get("properties", {}).items():
            item = _member(name, of, name in schema["required"], meanings.get(name, ""))
            self.set_source_info(item)
            members += item
        return [*content, members] if members.children else content


def _named(path: str) -> Iterator[type]:
    """The record of that path, or those of a package that are written on their own."""
    home, _, name = path.rpartition(".")
    package = import_module(home)
    if name != "*":
        yield getattr(package, name)
        return
    parts = (
        import_module(f"{home}.{part.name}") for part in pkgutil.iter_modules(package.__path__)
    )
    for module in (package, *parts):
        for found in vars(module).values():
            if "schema" in getattr(found, "__struct_fields__", ()):
                yield found


def _anchor(name: str) -> str:
    return f"record-{nodes.make_id(name)}"


def _meanings(doc: str) -> Iterator[tuple[str, str]]:
    """Field → its lines of a docstring's `Attributes`, of which one may be on several fields."""
    for names, meaning in _FIELD.findall(doc.partition(_FIELDS)[2]):
        for name in names.split(","):
            yield name.strip(), " ".join(meaning.split())


def _member(name: str, schema: dict[str, Any], required: bool, meaning: str) -> nodes.Node:
    kind = [*_type(schema)]
    if not required:
        default = json.dumps(schema.get("default", {}), ensure_ascii=False)
        kind += [nodes.Text(", default "), nodes.literal("", default)]
    term = nodes.term("", "", nodes.literal("", name))
    text = nodes.paragraph("", "", *_inline(meaning))
    classifier = nodes.classifier("", "", *kind)
    return nodes.definition_list_item("", term, classifier, nodes.definition("", text))


def _inline(text: str) -> Iterator[nodes.Node]:
    """Text in which code stands between backticks."""
    for i, part in enumerate(text.replace("``", "`").split("`")):
        yield nodes.literal("", part) if i % 2 else nodes.Text(part)


def _type(schema: dict[str, Any]) -> Iterator[nodes.Node]:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"]
        yield nodes.reference("", "", nodes.literal("", name), internal=True, refid=_anchor(name))
    elif "anyOf" in schema:
        yield from _joined(" or ", schema["anyOf"])
    elif "enum" in schema:
        yield from _joined(" or ", [{"const": value} for value in schema["enum"]])
    elif "const" in schema:
        yield nodes.literal("", json.dumps(schema["const"]))
    elif "prefixItems" in schema:
        yield nodes.Text("array of ")
        yield from _joined(", ", schema["prefixItems"])
    elif schema.get("type") == "array" and "items" in schema:
        yield nodes.Text("array of ")
        yield from _type(schema["items"])
    elif isinstance(schema.get("additionalProperties"), dict):
        yield nodes.Text("object of ")
        yield from _type(schema["additionalProperties"])
    else:
        limits = (f" {sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema)
        yield nodes.Text(schema.get("type", "anything") + "".join(limits))


def _joined(separator: str, schemas: list[dict[str, Any]]) -> Iterator[nodes.Node]:
    for i, schema in enumerate(schemas):
        if i:
            yield nodes.Text(separator)
        yield from _type(schema)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("records", Records)
    return {"parallel_read_safe": True}
