"""The report of a bundle, from results at hand and a look at the model at work."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from tiedexport import report
from tiedexport.advice import advise
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import BadInputError, TiedExportError
from tiedexport.observation import observe
from tiedexport.results import BenchResult, TrainResult, VerifyResult
from tiedexport.results.demo import DemoResult
from tiedexport.results.kinds import read_result
from tiedexport.results.server import ServerResult
from tiedexport.results.suite import SuiteResult
from tiedexport.results.ties import AuditResult
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiedexport.results.observation import Observation
    from tiedexport.spec import Precision

_VERBS: dict[type, str] = {
    VerifyResult: "verify",
    BenchResult: "bench",
    TrainResult: "train",
    AuditResult: "audit",
    ServerResult: "server",
    SuiteResult: "suite",
}


def write(bundle: str | Path, results: Iterable[str | Path], output: str | Path) -> Path:
    """Write the report of a bundle, with what the JSON files of other verbs hold.

    Args:
        bundle: its path.
        results: at most one file a verb, and of servers any number; one of `demo` stands for all
            of its verbs.
        output: the HTML file; see `tiedexport.report.report`.

    Returns:
        The path of the HTML file.

    Raises:
        BadInputError: a file is no result, or of another bundle, or there are two of a verb.
        TiedExportError: whatever `report` raises.
    """
    opened = open_bundle(bundle)
    found: dict[str, Any] = {}
    servers: list[ServerResult] = []
    for path in results:
        for result in _parts(read_result(path)):
            verb = _VERBS[type(result)]
            if verb in found:
                raise BadInputError(
                    f"a second result of {verb}", where=path, expected="one file a verb"
                )
            _refuse_of_another(opened, result, path)
            if isinstance(result, ServerResult):
                servers.append(result)
            else:
                found[verb] = result
    return present(opened, servers=servers, output=Path(output), **found)


def present(
    bundle: Bundle,
    *,
    verify: VerifyResult | None = None,
    bench: BenchResult | None = None,
    train: TrainResult | None = None,
    audit: AuditResult | None = None,
    servers: Sequence[ServerResult] = (),
    suite: SuiteResult | None = None,
    output: Path,
) -> Path:
    """Watch the model at work, decide what to deploy, and write the report; see `report`."""

    def hidden_copies(runtime: str, precision: Precision) -> str | None:
        return runtime_named(runtime).hidden_copies(bundle, precision)

    seen: Observation | str
    try:
        seen = observe(bundle)
    except TiedExportError as error:
        seen = "; ".join(str(part) for part in (error.what, error.hint or error.got) if part)
    return report.report(
        bundle,
        verify=verify,
        bench=bench,
        train=train,
        audit=audit,
        servers=servers,
        suite=suite,
        observation=seen,
        advice=advise(bench, verify, audit, hidden_copies),
        output=output,
    )


def _parts(result: object) -> list[Any]:
    if isinstance(result, DemoResult):
        return [result.train, result.audit, result.verify, result.bench]
    return [result]


def _refuse_of_another(bundle: Bundle, result: Any, path: object) -> None:
    """A result names its bundle by path, which may have moved since, and tells of its weights.

    That of a training names none; the bundle holds its record instead. The standing suite is of
    models of its own.
    """
    if isinstance(result, SuiteResult):
        return
    if isinstance(result, TrainResult):
        own = bundle.manifest.training in (None, result.record)
        got, expected = result.checkpoint, f"the training that {bundle.path.name} records"
    else:
        of = result.things if isinstance(result, AuditResult) else (result.bundle,)
        names = [PurePath(thing).name for thing in of]
        own = bundle.path.name in names
        got, expected = ", ".join(names), bundle.path.name
        if own and (other := _other_weights(bundle, result)):
            own, got, expected = (
                False,
                f"{got} with other weights in {other}",
                "those that it holds",
            )
    if own:
        return
    verb = _VERBS[type(result)]
    command = "bench --server URL" if verb == "server" else verb
    hint = f"tiedexport {command} {bundle.path} --json FILE"
    raise BadInputError(
        "the result is of another bundle",
        where=path,
        got=got,
        expected=expected,
        hint="leave it out: the report shows that record" if verb == "train" else hint,
    )


def _other_weights(bundle: Bundle, result: Any) -> str:
    """The precisions in which a result is of other weights, as far as it tells."""
    told, held = getattr(result, "weights_sha256", {}), bundle.manifest.weights_sha256
    return ", ".join(kind for kind in told if kind in held and told[kind] != held[kind])
