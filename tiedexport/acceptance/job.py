"""What the sections of an acceptance share: the device, what was built, and how long to measure."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from tiedexport import rounding, trt
from tiedexport.bundle import Bundle
from tiedexport.errors import MissingRuntimeError, TiedExportError
from tiedexport.measure.turns import Budget
from tiedexport.on_device.cuda import Cuda
from tiedexport.results.acceptance import Check, Finding
from tiedexport.runtimes import runtime_named
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tiedexport.progress import Progress
    from tiedexport.results import EngineOutcome
    from tiedexport.rounding import Bounded
    from tiedexport.spec import StageSpec

_log = logging.getLogger(__name__)

PACKAGES = tuple(trt.OLDEST)
"""That build engines and run them."""

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Settings:
    """Batch sizes, and how long each contender is timed at each of them, as in `bench`.

    There are some thirty contenders: a quarter of a second each makes minutes.
    """

    batch: tuple[int, ...] = (1, 8, 64, 256)
    warmup_ms: float = 50.0
    duration_s: float = 0.25
    iterations: int = 10

    @property
    def budget(self) -> Budget:
        """As `bench` has it."""
        return Budget(self.warmup_ms / 1e3, self.duration_s, self.iterations, PERCENTILES, 1)


@dataclass(frozen=True)
class Built:
    """The plans of one package, way and precision: `bundle` knows of no others.

    Attributes:
        package: that built them, and runs them.
        way: how they have their weights: a mode of `--weights`, or trtexec's way.
        precision: what they compute in.
        bundle: with as many of its stages as there are plans for.
    """

    package: str
    way: str
    precision: Precision
    bundle: Bundle

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.package} {self.way} {self.precision}"


@dataclass
class Job:
    """One run of the acceptance.

    Attributes:
        given: the user's bundle, which is read and never written; None makes models here.
        folder: for whatever is built.
        settings: how long to measure.
        progress: where to show it.
        built: the plans of the small model, from the section that builds them.
        made: bundle with engines → that bundle and what became of each engine.
    """

    given: Path | None
    folder: Path
    settings: Settings
    progress: Progress
    built: list[Built] = field(default_factory=list)
    made: dict[Path, tuple[Bundle, tuple[EngineOutcome, ...]]] = field(default_factory=dict)

    @cached_property
    def cuda(self) -> Cuda:
        """The device's clock and memory.

        Raises:
            MissingRuntimeError: there is no driver, no device, or no binding of it.
        """
        self.require_device()
        return Cuda()

    def require_device(self) -> trt.Device:
        """The device.

        Raises:
            MissingRuntimeError: there is none.
        """
        found, driver = trt.device(), trt.driver()
        if found is None:
            raise MissingRuntimeError(driver.reason, hint=driver.remedy)
        return found

    def plans_of(self, package: str, way: str) -> Built:
        """The small model's plans of a package and way, in the first precision that was built.

        Raises:
            MissingRuntimeError: there are none.
        """
        for built in self.built:
            if (built.package, built.way) == (package, way):
                return built
        raise MissingRuntimeError(f"no plan was built by {package} with weights {way}")

    def close(self) -> None:
        """Give back what the device holds for the job itself."""
        if "cuda" in self.__dict__:
            self.cuda.close()


def view(bundle: Bundle, **changes: object) -> Bundle:
    """The same files under an altered manifest: fewer plans, fewer stages."""
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, **changes))


def bound_on(
    bundle: Bundle,
    stage: StageSpec,
    precision: Precision,
    accumulation: Precision,
    weights: Mapping[str, np.ndarray] | None = None,
) -> Bounded:
    """What the golden inputs should give, and how far off a correct runtime may be.

    Args:
        bundle: where golden inputs and layers are.
        stage: what is run.
        precision: what it is computed in.
        accumulation: what sums are kept in.
        weights: in the place of the bundle's own.

    Raises:
        MissingRuntimeError: the bundle lacks the fp32 weights of its golden outputs.
    """
    manifest = bundle.manifest
    if weights is None:
        if Precision.FP32 not in manifest.precisions:
            raise MissingRuntimeError(
                "the golden outputs are of fp32 weights, which the bundle does not hold",
                where=bundle.path,
                got=", ".join(manifest.precisions),
                hint="tiedexport build model.pt --precision fp32,fp16",
            )
        weights = bundle.weights(Precision.FP32)
    return rounding.forward_bound(
        stage.layers,
        weights,
        bundle.golden[stage.inputs[0].name].astype(np.float64),
        precision=precision,
        accumulation=accumulation,
        io=manifest.io_dtype,
        kept=manifest.kept.get(precision, {}),
    )


def worst_in_bounds(output: np.ndarray, bounded: Bounded) -> float:
    """The largest error in units of its bound, rows of the bound repeating; inf if not finite."""
    rows = np.arange(len(output)) % len(bounded.value)
    ratio = np.abs(output.astype(np.float64) - bounded.value[rows]) / bounded.bound[rows]
    return float(ratio.max()) if np.isfinite(output.astype(np.float64)).all() else float("inf")


def each_package(
    job: Job, what: str, examine: Callable[[str], Iterator[Finding]]
) -> Iterator[Finding]:
    """What `examine` finds for each package that built plans, or why those do not run here.

    Raises:
        MissingRuntimeError: there are no plans at all.
    """
    packages = dict.fromkeys(built.package for built in job.built)
    if not packages:
        raise MissingRuntimeError("no plan was built for this device")
    for package in packages:
        found = runtime_named(package).availability()
        if found.available:
            yield from examine(package)
        else:
            yield Check(f"{package}: {what}", "not run", found.why)


def reporting(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, and what ended them early as one more: nothing that is raised gets lost."""
    try:
        yield from findings
    except MissingRuntimeError as error:
        reason = "; ".join(str(part) for part in (error.what, error.got, error.hint) if part)
        yield Check(what, "not run", reason)
    except ImportError as error:
        yield Check(what, "not run", f"{error}; tiedexport doctor says what to install")
    except Exception as error:
        _log.exception("%s", what)
        name = "" if isinstance(error, TiedExportError) else f"{type(error).__name__}: "
        yield Check(what, "failed", f"{name}{error}")
