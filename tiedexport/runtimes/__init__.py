"""The contract of a runtime, and the registry of those that exist.

Every file in this package is a runtime; it lists its rows in `RUNTIMES`. Other packages add theirs
through the entry-point group `tiedexport.runtimes`, each entry naming a module with such a list.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, Protocol

from tiedexport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from tiedexport.bundle import Bundle
    from tiedexport.results import Availability
    from tiedexport.spec import Precision, StageSpec

Memory = Literal["shared", "packed"]


@dataclass(frozen=True)
class Options:
    """What a caller may ask of any runtime.

    Attributes:
        memory: "shared" keeps one copy of each weight among all stages, sessions and processes
            of a host; "packed" takes the runtime's fastest layout, whatever it stores.
        threads: CPU threads a session computes with; None is the runtime's own default.
    """

    memory: Memory = "shared"
    threads: int | None = None


class Backend(Protocol):
    """A library's side of a session: arrays reaching it are checked, errors leaving it are ours.

    Several threads may call it at once, but none once it closes: the session sees to that.
    """

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Run one stage on a C-contiguous array; write into `out` and return it where given."""
        ...

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        """A call that runs the stage from `x` to `out` with all set-up done once."""
        ...

    def close(self) -> None:
        """Free what the library holds; called once."""
        ...


class Runtime(Protocol):
    """One row: a library on a kind of device. A class that derives from it has the defaults.

    Attributes:
        name: as given to `--runtime`.
        rank: `auto` takes the available runtime of the lowest rank, but first what keeps one
            copy of each weight and is not slower than others.
        slow: an evaluator for judging, not for deploying: timed only if asked for by name.
        packs: whether "packed" memory is laid out otherwise than "shared".
        on_gpu: whether it computes on a device with memory of its own.
        remark: what must be said beside each of its results: that it simulates another, say.
        precisions: what it computes in, best first.
        accumulation: precision → the type that its sums are assumed to be kept in.
    """

    name: str
    rank: int
    slow: bool = False
    packs: bool = False
    on_gpu: bool = False
    remark: str = ""
    precisions: tuple[Precision, ...]
    accumulation: dict[Precision, Precision]

    def availability(self) -> Availability:
        """Whether it works on this machine; if not, why and what to install."""
        ...

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        """Why this runtime, though available, cannot run this bundle in this precision; or None."""
        ...

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        """Why the host's memory would hold a weight more than once in "shared" mode; or None.

        `auto` prefers whatever holds it once. Copies on a device are not the host's.
        """
        ...

    def slower_than_others(self, bundle: Bundle, precision: Precision) -> str | None:
        """Why those of a higher rank run this bundle in this precision faster; or None.

        `auto` prefers them, unless they would store weights again.
        """
        return None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> Backend:
        """Get ready to run every stage.

        Raises:
            RuntimeFailedError: the library refused, in its own words.
        """
        ...

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        """The output of every layer of a stage by `Layer.output`, or why it cannot be seen here.

        Raises:
            RuntimeFailedError: the library refused, in its own words.
        """
        ...


@cache
def all_runtimes() -> dict[str, Runtime]:
    """Every runtime by name, whether or not it can work here, lowest rank first.

    Raises:
        UsageError: two of them have one name, so that nobody could tell which one ran.
    """
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    names += [entry.value for entry in entry_points(group="tiedexport.runtimes")]
    homes: dict[str, str] = {}
    rows: list[Runtime] = []
    for module in names:
        for row in importlib.import_module(module).RUNTIMES:
            if row.name in homes:
                raise UsageError(
                    "two runtimes have one name",
                    where=f"{homes[row.name]} and {module}",
                    got=repr(row.name),
                    hint="uninstall the package that brings one of them",
                )
            homes[row.name] = module
            rows.append(row)
    return {row.name: row for row in sorted(rows, key=lambda row: row.rank)}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        UsageError: there is none.
    """
    runtimes = all_runtimes()
    if name not in runtimes:
        raise UsageError(
            "unknown runtime",
            got=repr(name),
            expected=", ".join(runtimes),
            hint="tiedexport doctor lists what this machine has",
        )
    return runtimes[name]


def bind_by_running(
    backend: Backend, stage: StageSpec, x: np.ndarray, out: np.ndarray
) -> Callable[[], None]:
    """`Backend.bind` for a library that has nothing to set up once: each call is a `run`."""

    def call() -> None:
        backend.run(stage, x, out)

    return call


def choose_precision(
    runtime: Runtime, bundle: Bundle, wanted: Precision | None = None
) -> tuple[Precision | None, str]:
    """The precision that a runtime would run a bundle in here, or None and why it cannot.

    Where none is wanted it is the runtime's best of those that need no second copy of a weight, and
    its best of all where each does.
    """
    availability = runtime.availability()
    if not availability.available:
        return None, availability.reason
    stored = bundle.manifest.precisions
    choices = [wanted] if wanted else runtime.precisions
    copying, refusals = [], []
    for precision in choices:
        if precision not in stored:
            continue
        if (refusal := _refusal(runtime, bundle, precision)) is not None:
            refusals.append(refusal)
        elif wanted is None and runtime.hidden_copies(bundle, precision) is not None:
            copying.append(precision)
        else:
            return precision, ""
    if copying:
        return copying[0], ""
    # Of several, the one about the best precision tells most.
    return None, refusals[0] if refusals else f"the bundle holds {', '.join(stored)} only"


def _refusal(runtime: Runtime, bundle: Bundle, precision: Precision) -> str | None:
    """The runtime's own, or that some weights are of a type that it does not compute in."""
    for weight, kind in bundle.manifest.kept.get(precision, {}).items():
        if kind not in runtime.precisions:
            return f"it has no {kind} kernels, and {weight} is in {kind}"
    return runtime.refusal(bundle, precision)
