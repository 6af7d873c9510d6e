"""A result of any verb, read back from the JSON that it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from tiedexport.errors import BadInputError
from tiedexport.results import RESULT_SCHEMA, BenchResult, TrainResult, VerifyResult
from tiedexport.results.bench import BENCH_SCHEMA
from tiedexport.results.demo import DemoResult
from tiedexport.results.reading import decoded, json_object
from tiedexport.results.server import SERVER_SCHEMA, ServerResult
from tiedexport.results.suite import SuiteResult
from tiedexport.results.ties import AuditResult

if TYPE_CHECKING:
    from pathlib import Path

AnyResult: TypeAlias = (
    BenchResult | DemoResult | VerifyResult | AuditResult | TrainResult | ServerResult | SuiteResult
)

_BY_FIELD: dict[str, type[AnyResult]] = {
    "latencies": BenchResult,
    "report": DemoResult,
    "comparisons": VerifyResult,
    "findings": AuditResult,
    "record": TrainResult,
    "url": ServerResult,
    "commit": SuiteResult,
}
"""A field that only one verb's result has, and its record."""

_NEWEST = {BenchResult: BENCH_SCHEMA, ServerResult: SERVER_SCHEMA}
"""The schemas of those that have numbers of their own."""

_VERBS = "audit, bench, bench --server, bench --suite, demo, train or verify"


def read_result(path: str | Path) -> AnyResult:
    """What a verb wrote with `--json`, of this version or an earlier one.

    Raises:
        BadInputError: there is no such file, it is no such result, or of a later version.
    """
    content, fields = json_object(path, _no_result)
    found = next((kind for field, kind in _BY_FIELD.items() if field in fields), None)
    if found is None:
        raise _no_result(path, f"fields {', '.join(list(fields)[:4]) or 'none'}")
    newest = _NEWEST.get(found, RESULT_SCHEMA)
    return decoded(content, fields, path, found, newest, _no_result)


def _no_result(path: object, got: str) -> BadInputError:
    return BadInputError(
        "the file is no result that a report can show",
        where=path,
        got=got,
        expected=f"the JSON of {_VERBS}",
        hint="tiedexport verify NAME.tied --json FILE writes one",
    )
