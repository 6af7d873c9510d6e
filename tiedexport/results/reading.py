"""Results that were written earlier, by this version or one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tiedexport.errors import BadInputError
from tiedexport.results.bench import BENCH_SCHEMA, BenchResult


def read_bench(path: str | Path) -> BenchResult:
    """What `tiedexport bench --json` wrote, of this schema or an earlier one.

    Raises:
        BadInputError: there is no such file, it is no result of bench, or of a later version.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInputError(
            "no earlier result can be read", where=path, got=error.strerror, hint=_WRITE
        ) from error
    schema = _schema(content, path)
    if schema > BENCH_SCHEMA:
        raise BadInputError(
            "the result is of a later version of tiedexport",
            where=path,
            got=f"schema {schema}",
            expected=f"schema 1 to {BENCH_SCHEMA}",
            hint="pip install --upgrade tiedexport",
        )
    try:
        return msgspec.json.decode(content, type=BenchResult)
    except msgspec.ValidationError as error:
        raise _not_of_bench(path, str(error)) from error


_WRITE = "tiedexport bench NAME.tied --json FILE writes one"


def _schema(content: bytes, path: object) -> int:
    try:
        fields: Any = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise _not_of_bench(path, f"no JSON: {error}") from error
    if not isinstance(fields, dict) or "latencies" not in fields:
        raise _not_of_bench(path, "no latencies")
    schema = fields.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise _not_of_bench(path, f"schema {schema!r}")
    return schema


def _not_of_bench(path: object, got: str) -> BadInputError:
    return BadInputError(
        "the file is no result of bench",
        where=path,
        got=got,
        expected="the JSON that tiedexport bench writes",
        hint=_WRITE,
    )
