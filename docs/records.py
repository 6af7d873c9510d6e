"""The directive `records`: sections on msgspec records, drawn from the records themselves.

Its lines name records; a section is made for each of them and for each that their fields hold, with
the fields' types as they are in JSON, and with what the docstring says of them.
"""

from __future__ import annotations

import inspect
import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_FIELD = re.compile(r"^    (\w[\w, ]*): (.*(?:\n      .*)*)", re.MULTILINE)
_SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns):$", re.MULTILINE)


class Records(SphinxDirective):
    """A section a record."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        names = [name for line in self.content for name in line.split()]
        for name in names:  # so that a type in a signature leads here
            anchor = _anchor(name.rpartition(".")[2])
            self.env.domains.python_domain.note_object(name, "class", anchor)
        records = [_found(name) for name in names]
        _, schemas = msgspec.json.schema_components(records, ref_template="{name}")
        return [self._section(name, schemas[name]) for name in schemas]

    def _section(self, name: str, schema: dict[str, Any]) -> nodes.Node:
        section = nodes.section(ids=[_anchor(name)])
        section += nodes.title("", "", nodes.literal("", name))
        text = inspect.cleandoc(schema.get("description", ""))
        prose, _, fields = text.partition("\nAttributes:\n")
        for paragraph in _SECTION.split(prose)[0].strip().split("\n\n"):
            section += nodes.paragraph("", "", *_inline(paragraph))
        if "enum" in schema:
            section += nodes.paragraph("", "", nodes.Text("One of "), *_type(schema))
        if members := schema.get("properties"):
            meanings = dict(_meanings(fields))
            section += nodes.definition_list(
                "",
                *(
                    _member(member, of, member in schema["required"], meanings.get(member, ""))
                    for member, of in members.items()
                ),
            )
            for item in section.findall(nodes.definition_list_item):
                self.set_source_info(item)
        return section


def _found(name: str) -> Any:
    module, _, record = name.rpartition(".")
    return getattr(import_module(module), record)


def _anchor(name: str) -> str:
    return f"record-{nodes.make_id(name)}"


def _meanings(fields: str) -> Iterator[tuple[str, str]]:
    """Field → its lines of a docstring's `Attributes`, of which one may be on several fields."""
    for names, meaning in _FIELD.findall(fields):
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
        words = ", ".join(json.dumps(value) for value in schema["enum"])
        yield nodes.literal("", words)
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
