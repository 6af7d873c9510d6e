"""The JSON Schemas of what `bench --json` writes."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from tiedexport.results.bench import BENCH_SCHEMA, BenchResult
from tiedexport.results.server import SERVER_SCHEMA, ServerResult

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def bench_schema() -> dict[str, Any]:
    """The schema of this version's results; those of an earlier one fit it but for their number.

    New fields may come within a version: a reader should pass over what it does not know.
    """
    passed = (
        "Whether something was measured, nothing failed, and nothing became slower than it may."
    )
    return _schema(BenchResult, "bench", BENCH_SCHEMA, passed)


def server_schema() -> dict[str, Any]:
    """The schema of this version's results of `bench --server`; as `bench_schema` otherwise."""
    passed = "Whether something was measured, no request failed, and no answer was wrong."
    return _schema(ServerResult, "bench --server", SERVER_SCHEMA, passed)


def _schema(kind: type, verb: str, number: int, passed: str) -> dict[str, Any]:
    (found,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    whole = parts.pop(found["$ref"].rpartition("/")[2])
    whole["properties"]["schema"] = {"const": number}
    whole["properties"]["passed"] = {"type": "boolean", "description": passed}
    whole["required"] += ["schema", "passed"]
    whole["title"] = f"A result of tiedexport {verb}, schema {number}"
    for part in (whole, *parts.values()):
        if "description" in part:
            part["description"] = cleandoc(part["description"])
    return {"$schema": _DIALECT, **whole, "$defs": parts}
