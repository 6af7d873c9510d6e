"""The JSON Schema of what `bench --json` writes."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from tiedexport.results.bench import BENCH_SCHEMA, BenchResult

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def bench_schema() -> dict[str, Any]:
    """The schema of this version's results; those of an earlier one fit it but for their number.

    New fields may come within a version: a reader should pass over what it does not know.
    """
    (found,), parts = msgspec.json.schema_components([BenchResult], ref_template="#/$defs/{name}")
    whole = parts.pop(found["$ref"].rpartition("/")[2])
    whole["properties"]["schema"] = {"const": BENCH_SCHEMA}
    whole["properties"]["passed"] = {
        "type": "boolean",
        "description": "Whether something was measured, nothing failed, and nothing became slower "
        "than it may.",
    }
    whole["required"] += ["schema", "passed"]
    whole["title"] = f"A result of tiedexport bench, schema {BENCH_SCHEMA}"
    for part in (whole, *parts.values()):
        if "description" in part:
            part["description"] = cleandoc(part["description"])
    return {"$schema": _DIALECT, **whole, "$defs": parts}
