"""What the verbs report: frozen records that print, compare and serialise the same everywhere.

Every record that reaches a JSON file stands under a result with a `schema` number. A row that did
not run has status `not run` and a reason; it never counts as passed.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from tiedexport.results.bench import BenchResult as BenchResult
from tiedexport.results.bench import Latency as Latency
from tiedexport.results.machine import Environment as Environment
from tiedexport.results.precision import TieChoice
from tiedexport.results.status import Status as Status
from tiedexport.spec import Precision, TrainingRecord

RESULT_SCHEMA = 1


class Availability(Struct, frozen=True):
    """Whether a runtime or engine builder can work here; if not, why and what to install or do."""

    available: bool
    version: str = ""
    reason: str = ""
    remedy: str = ""

    @property
    def why(self) -> str:
        """Reason and remedy in one line; empty where it is available."""
        return "; ".join(filter(None, (self.reason, self.remedy)))


class Component(Struct, frozen=True):
    """A row of `doctor`: a runtime, an engine builder, a package, or a part of the environment."""

    kind: Literal["runtime", "engine builder", "package", "environment"]
    name: str
    availability: Availability


class DoctorResult(Struct, frozen=True):
    """Everything that `doctor` found.

    `warnings` are contradictions, such as both onnxruntime packages in one environment.
    """

    components: tuple[Component, ...]
    environment: Environment
    warnings: tuple[str, ...] = ()
    schema: int = RESULT_SCHEMA


class Comparison(Struct, frozen=True):
    """One runtime, stage and precision against the float64 golden outputs.

    A runtime that cannot run here at all is one row without stage and precision.

    Attributes:
        layer: the ONNX value that was compared; empty for the stage's output.
        absolute_error, relative_error: the worst over all outputs (relative where |golden| > 0).
        worst_index: where the error in units of its bound is largest.
        error_in_bounds: the largest |error| / bound; above 1 is a failure.
        bound: the bound at `worst_index`.
        accumulation: the type that sums were assumed to be kept in.
        cosine: cosine of the angle between output and golden output.
        psnr_db: peak signal-to-noise ratio in dB.
        remark: what must be said beside it whatever its status: that it simulates another runtime,
            or that it comes from a file.
    """

    runtime: str
    stage: str
    precision: Precision | None
    status: Status
    reason: str = ""
    absolute_error: float | None = None
    relative_error: float | None = None
    worst_index: tuple[int, ...] = ()
    error_in_bounds: float | None = None
    bound: float | None = None
    accumulation: Precision | None = None
    nan_count: int = 0
    inf_count: int = 0
    cosine: float | None = None
    psnr_db: float | None = None
    layer: str = ""
    remark: str = ""


class Quality(Struct, frozen=True):
    """Reconstruction error of one runtime and precision on the held-back test set.

    `test_rmse` and `test_psnr_db` are of all elements of all samples together, which lie in [0, 1]:
    the peak of the signal-to-noise ratio is 1. There is none where the reconstruction is exact.
    """

    runtime: str
    precision: Precision
    status: Status
    reason: str = ""
    test_rmse: float | None = None
    samples: int = 0
    remark: str = ""
    test_psnr_db: float | None = None


class Reconstruction(Struct, frozen=True):
    """What one runtime made of the first golden inputs, for pictures: grey or colour, 8 bits.

    `pixels` are `shape` = [n, height, width] or [n, height, width, channels] bytes in C order.
    """

    runtime: str
    precision: Precision
    shape: tuple[int, ...]
    pixels: bytes
    remark: str = ""


class VerifyResult(Struct, frozen=True):
    """All rows of `verify`, and the runtimes that were required but did not run.

    `layers` are rows for the output of every layer, in order, where those were asked for; `strays`
    are those of them that leave their bound first, in each runtime, precision and stage.
    `weights_sha256` are digests of the weights that the bundle held; none in older files.
    """

    bundle: str
    comparisons: tuple[Comparison, ...]
    quality: tuple[Quality, ...]
    reconstructions: tuple[Reconstruction, ...]
    environment: Environment
    seconds: float
    missing: tuple[str, ...] = ()
    layers: tuple[Comparison, ...] = ()
    strays: tuple[Comparison, ...] = ()
    weights_sha256: dict[Precision, str] = {}
    schema: int = RESULT_SCHEMA

    @property
    def ran(self) -> int:
        """How many comparisons ran."""
        return sum(row.status != "not run" for row in self.comparisons)

    @property
    def failed(self) -> bool:
        """Whether anything that ran failed."""
        rows: tuple[Comparison | Quality, ...] = (*self.comparisons, *self.layers, *self.quality)
        return any(row.status == "failed" for row in rows)

    @property
    def passed(self) -> bool:
        """Whether something ran, everything required did, and nothing that ran failed."""
        return self.ran > 0 and not self.missing and not self.failed


class EngineOutcome(Struct, frozen=True):
    """One engine that a build was asked for, or tried by itself.

    A target that this machine cannot build for is one row without stage and precision. `reused`:
    nothing that determines the plan had changed since it was built.
    """

    target: str
    stage: str
    precision: Precision | None
    status: Status
    reason: str = ""
    file: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    reused: bool = False
    notes: tuple[str, ...] = ()


class BuildResult(Struct, frozen=True):
    """What `build` wrote, which engines it could not build, and whether those were asked for.

    Attributes:
        notes: how the model was read, and what was assumed of it, a line each.
        precision_choice: why each tie has its type, where the build chose.
        kept: precision → weight → the type that it has there instead.
    """

    bundle: str
    precisions: tuple[Precision, ...]
    parameter_bytes: int
    file_bytes: int
    engine_bytes: int
    engines: tuple[EngineOutcome, ...]
    seconds: float
    engines_asked_for: bool = False
    notes: tuple[str, ...] = ()
    precision_choice: tuple[TieChoice, ...] = ()
    kept: dict[Precision, dict[str, Precision]] = {}
    schema: int = RESULT_SCHEMA

    @property
    def passed(self) -> bool:
        """Whether every engine that was asked for by name was built."""
        built = all(engine.status == "passed" for engine in self.engines)
        return built or not self.engines_asked_for


class TrainResult(Struct, frozen=True):
    """What `train` reached and where it wrote its checkpoint and pictures."""

    checkpoint: str
    record: TrainingRecord
    pictures: tuple[str, ...]
    seconds: float
    schema: int = RESULT_SCHEMA


_NUMBERS = re.compile(rb"\[\n\s+((?:[-+.\deE]+,?\s+)+)\]")


def to_json(result: Struct) -> bytes:
    """A result as indented JSON with a final newline; `passed` where the record has a verdict.

    A list of numbers stands on one line: there may be hundreds of them, in a row of many.
    """
    fields: dict[str, Any] = msgspec.to_builtins(result)
    if hasattr(result, "passed"):
        fields["passed"] = result.passed
    text = msgspec.json.format(msgspec.json.encode(fields), indent=2)
    return _NUMBERS.sub(lambda found: b"[" + b" ".join(found[1].split()) + b"]", text) + b"\n"
