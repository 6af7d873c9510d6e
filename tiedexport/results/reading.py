"""Results that were written earlier, by this version or one before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tiedexport.errors import BadInputError
from tiedexport.results.bench import BENCH_SCHEMA, BenchResult

if TYPE_CHECKING:
    from collections.abc import Callable

    Refusal = Callable[[object, str], BadInputError]

T = TypeVar("T")


def read_bench(path: str | Path) -> BenchResult:
    """What `tiedexport bench --json` wrote, of this schema or an earlier one.

    Raises:
        BadInputError: there is no such file, it is no result of bench, or of a later version.
    """
    content, fields = json_object(path, _not_of_bench)
    if "latencies" not in fields:
        raise _not_of_bench(path, "no latencies")
    return decoded(content, fields, path, BenchResult, BENCH_SCHEMA, _not_of_bench)


def json_object(path: str | Path, refusal: Refusal) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file, and the JSON object that they are.

    Raises:
        BadInputError: what `refusal` makes of the path and of what is wrong.
    """
    try:
        content = Path(path).read_bytes()
        fields: Any = msgspec.json.decode(content)
    except OSError as error:
        raise refusal(path, str(error.strerror)) from error
    except msgspec.DecodeError as error:
        raise refusal(path, f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise refusal(path, f"JSON of a {type(fields).__name__}")
    return content, fields


def decoded(
    content: bytes,
    fields: dict[str, Any],
    path: object,
    kind: type[T],
    newest_schema: int,
    refusal: Refusal,
) -> T:
    """The record of that kind.

    Raises:
        BadInputError: it is of a later version, or what `refusal` makes of what is wrong.
    """
    schema = fields.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise refusal(path, f"schema {schema!r}")
    if schema > newest_schema:
        raise BadInputError(
            "the result is of a later version of tiedexport",
            where=path,
            got=f"schema {schema}",
            expected=f"schema 1 to {newest_schema}",
            hint="pip install --upgrade tiedexport",
        )
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise refusal(path, str(error)) from error


def _not_of_bench(path: object, got: str) -> BadInputError:
    return BadInputError(
        "the file is no result of bench",
        where=path,
        got=got,
        expected="the JSON that tiedexport bench writes",
        hint="tiedexport bench NAME.tied --json FILE writes one",
    )
