"""A result of any verb, read back from the JSON that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tiedexport.errors import BadInputError
from tiedexport.results import RESULT_SCHEMA, TrainResult, VerifyResult
from tiedexport.results.demo import DemoResult
from tiedexport.results.reading import read_bench
from tiedexport.results.ties import AuditResult

if TYPE_CHECKING:
    from tiedexport.results import BenchResult

_BY_FIELD: dict[str, type[DemoResult | VerifyResult | AuditResult | TrainResult]] = {
    "report": DemoResult,
    "comparisons": VerifyResult,
    "findings": AuditResult,
    "record": TrainResult,
}
"""A field that only one verb's result has, and its record."""

_VERBS = "audit, bench, demo, train or verify"


def read_result(
    path: str | Path,
) -> BenchResult | DemoResult | VerifyResult | AuditResult | TrainResult:
    """What a verb wrote with `--json`, of this version or an earlier one.

    Raises:
        BadInputError: there is no such file, it is no such result, or of a later version.
    """
    try:
        content = Path(path).read_bytes()
        fields: Any = msgspec.json.decode(content)
    except OSError as error:
        raise _no_result(path, str(error.strerror)) from error
    except msgspec.DecodeError as error:
        raise _no_result(path, f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _no_result(path, f"JSON of a {type(fields).__name__}")
    if "latencies" in fields:
        return read_bench(path)
    found = next((kind for field, kind in _BY_FIELD.items() if field in fields), None)
    if found is None:
        raise _no_result(path, f"fields {', '.join(list(fields)[:4]) or 'none'}")
    schema = fields.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= RESULT_SCHEMA:
        raise BadInputError(
            "the result is of a version that this one cannot read",
            where=path,
            got=f"schema {schema!r}",
            expected=f"schema 1 to {RESULT_SCHEMA}",
            hint="pip install --upgrade tiedexport",
        )
    try:
        return msgspec.json.decode(content, type=found)
    except msgspec.ValidationError as error:
        raise _no_result(path, str(error)) from error


def _no_result(path: object, got: str) -> BadInputError:
    return BadInputError(
        "the file is no result that a report can show",
        where=path,
        got=got,
        expected=f"the JSON of {_VERBS}",
        hint="tiedexport verify NAME.tied --json FILE writes one",
    )
