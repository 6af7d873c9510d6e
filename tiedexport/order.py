"""What a build is asked for, with every default filled in and every contradiction refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, get_args

from tiedexport import engines, live
from tiedexport.bundle import open_bundle
from tiedexport.engine_build.graphs import stages as stages_of
from tiedexport.engine_build.jobs import (
    Wanted,
    engine_precisions,
    plans_that_stand,
    weights_that_stand,
)
from tiedexport.engine_options import check_shapes, contradiction
from tiedexport.engine_words import Weights
from tiedexport.errors import BundleError, UsageError
from tiedexport.spec import STAGE_OF_VERB, Precision, precisions_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Unpack

    from torch import nn

    from tiedexport.bundle import Bundle
    from tiedexport.checkpoint import Checkpoint
    from tiedexport.engine_options import EngineOptions
    from tiedexport.foreign.brought import Asked
    from tiedexport.manifest import Manifest

DEFAULT_OPSET = 22
DEFAULT_PRECISIONS = (Precision.FP32, Precision.FP16)
AUTO = "auto"


class Options(TypedDict, total=False):
    """What `build` and `plan` take besides the model and its bundle.

    Attributes:
        precision: "fp32,fp16,bf16" or an iterable; "auto" decides by evidence; by default the
            recipe's, else fp32 and fp16.
        keep_fp32: weights that stay in fp32 in every precision.
        target: engines to build, "rtx:sm89" or "tensorrt", one or several; by default the
            recipe's and those of the bundle that is replaced, else every engine that this machine
            can build; an empty iterable builds none.
        weights: "shared" makes engines that take their weights as inputs, "baked" puts them inside,
            "one-plan" puts both directions into one plan; by default what the plans that stand
            agree in, else "shared".
        engine_options: in trtexec's words; by default what the plans that stand agree in.
        profile_shapes: input → its shape behind the batch, to be held to that of the model.
        timing_cache: a file of measured kernels that TensorRT reads and adds to.
        force: build engines that stand unchanged, too.
        opset: ONNX operator set, 18 to 23 (Gelu needs 20, bf16 convolutions 22); by default 22.
        io_dtype: type of every stage's inputs and outputs, "fp32" (the default) or "fp16".
        family: of a bare state dict: "autoencoder".
        settings: fields of that family's configuration that a state dict cannot tell, as
            {"activation": "tanh"}.
        input_shape: of one item, for a live module that has no such attribute.
        samples: a file of inputs for the golden pairs; by default the checkpoint's, else random.
    """

    precision: str | Iterable[str] | None
    keep_fp32: Iterable[str]
    target: str | Iterable[str] | None
    weights: Weights | None
    engine_options: EngineOptions | None
    profile_shapes: Mapping[str, tuple[int, ...]]
    timing_cache: str | Path | None
    force: bool
    opset: int | None
    io_dtype: str | None
    family: str | None
    settings: Mapping[str, str] | None
    input_shape: int | Sequence[int] | None
    samples: str | Path | None


@dataclass(frozen=True)
class EngineOrder:
    """Which engines a build was asked for, whatever it is built from.

    Attributes:
        asked_for: the targets were named, by the user or a recipe.
        standing: the bundle that will be replaced, if it can be read.
    """

    standing: Bundle | None
    targets: tuple[str, ...]
    asked_for: bool
    weights: Weights | None
    options: EngineOptions | None
    profile_shapes: Mapping[str, tuple[int, ...]]
    timing_cache: Path | None
    force: bool

    def wanted(self, precisions: Iterable[Precision]) -> Wanted:
        """The same, for the precisions that a bundle holds."""
        return Wanted(
            self.targets,
            engine_precisions(precisions),
            self.weights,
            self.options,
            self.timing_cache,
            self.force,
        )

    def describe(self, precisions: tuple[Precision, ...] | None) -> Iterator[str]:
        """A line a target."""
        types = "chosen types" if precisions is None else ", ".join(engine_precisions(precisions))
        for target in self.targets:
            modes = ", ".join(sorted(self._modes(target, precisions or tuple(Precision))))
            yield f"build   {target} engines in {types}, weights {modes}"

    @property
    def left_out(self) -> str:
        """Which engines of the bundle that is replaced are not asked for again; empty if none."""
        stand = dict.fromkeys(plan.target for plan in plans_that_stand(self.standing))
        gone = [target for target in stand if target not in self.targets]
        keep = " ".join(f"--target {target}" for target in gone)
        return f"{', '.join(gone)} engines; {keep} keeps them" if gone else ""

    def check_shapes(self, manifest: Manifest, precisions: Iterable[Precision]) -> None:
        """Hold the shapes that profiles were given with to the inputs of stages and of engines.

        Raises:
            UsageError: there is no such input, or it has another shape.
        """
        precisions = tuple(precisions)
        modes = {mode for target in self.targets for mode in self._modes(target, precisions)}
        stages = [*manifest.stages, *(one for mode in modes for one in stages_of(manifest, mode))]
        check_shapes(self.profile_shapes, [spec for stage in stages for spec in stage.inputs])

    def _modes(self, target: str, precisions: Iterable[Precision]) -> set[Weights]:
        if self.weights is not None:
            return {self.weights}
        plans = plans_that_stand(self.standing)
        return {weights_that_stand(plans, target, one) for one in engine_precisions(precisions)}


@dataclass(frozen=True)
class Order:
    """What a build was asked for.

    Attributes:
        precisions: None leaves the choice to the evidence.
        engines: which engines, and how.
        random_samples: the checkpoint's are no data.
    """

    checkpoint: Checkpoint
    source: str
    notes: tuple[str, ...]
    output: Path
    precisions: tuple[Precision, ...] | None
    keep_fp32: tuple[str, ...]
    engines: EngineOrder
    opset: int
    io_dtype: Precision
    random_samples: bool

    def describe(self) -> str:
        """The plan of work, a line a step."""
        stages = ", ".join(STAGE_OF_VERB.values())
        lines = [
            f"read    {self.source}",
            *(f"        {note}" for note in self.notes),
            f"export  {stages} to ONNX opset {self.opset}, {self.io_dtype} in and out",
        ]
        if self.precisions is None:
            lines.append("choose  a precision for each tie, by evidence")
        lines += [f"write   weights and three graphs in {p}" for p in self.precisions or ()]
        lines += self.engines.describe(self.precisions)
        if left_out := self.engines.left_out:
            lines.append(f"drop    {left_out}")
        return "\n".join([*lines, f"write   {self.output}"])


def order_from(
    model: str | Path | nn.Module, output: str | Path | None, **options: Unpack[Options]
) -> Order:
    """Read the model and fill in the defaults, from its recipe where it has one.

    Raises:
        TiedExportError: as `export.build`.
    """
    from tiedexport import foreign
    from tiedexport.foreign.samples import RANDOM

    opset, io_dtype = options.get("opset") or DEFAULT_OPSET, options.get("io_dtype") or "fp32"
    _refuse_unknown(io_dtype, opset)
    named = isinstance(model, str | Path)
    if not named and output is None:
        raise UsageError("a module has no place beside it", got="no output", expected="a path")
    brought = foreign.checkpoint(model, _asked(options))
    training = brought.checkpoint.training
    recipe = training.recipe.get("build", {}) if training else {}
    place = Path(output) if output is not None else _beside(str(model))
    precision = options.get("precision")
    if precision is None:
        precision = recipe.get("precisions") or DEFAULT_PRECISIONS
    return Order(
        checkpoint=brought.checkpoint,
        source=str(model) if named else type(model).__name__,
        notes=brought.notes,
        output=place,
        precisions=None if precision in (AUTO, [AUTO], (AUTO,)) else precisions_from(precision),
        keep_fp32=tuple(options.get("keep_fp32") or ()),
        engines=engine_order(options, _standing(place), recipe.get("targets")),
        opset=opset,
        io_dtype=Precision(io_dtype),
        random_samples=RANDOM in brought.notes,
    )


def engine_order(
    options: Options, standing: Bundle | None, by_default: Iterable[str] | None = None
) -> EngineOrder:
    """The part of the options that is about engines.

    Args:
        options: of the call.
        standing: the bundle that will be replaced.
        by_default: targets that a recipe names.

    Raises:
        UsageError: there is no such target, or the options contradict each other.
    """
    asked = options.get("target")
    if asked is not None:
        wanted = (asked,) if isinstance(asked, str) else tuple(asked)
    else:  # engines that stand already are made anew, or kept
        wanted = (*(by_default or ()), *(plan.target for plan in plans_that_stand(standing)))
    names = wanted if wanted or asked is not None else engines.default_targets()
    for name in names:
        engines.builder_for(name)
    weights, chosen = options.get("weights"), options.get("engine_options")
    if weights not in (None, *get_args(Weights)):
        expected = ", ".join(get_args(Weights))
        raise UsageError("unknown weights mode", got=repr(weights), expected=expected)
    mode = weights or (None if plans_that_stand(standing) else "shared")
    if chosen and mode and (reason := contradiction(chosen, mode)) is not None:
        raise UsageError("no engine can be built with these options", got=reason)
    cache = options.get("timing_cache")
    return EngineOrder(
        standing,
        tuple(dict.fromkeys(names)),
        asked is not None or bool(by_default),
        weights,
        chosen,
        options.get("profile_shapes") or {},
        None if cache is None else Path(cache),
        options.get("force", False),
    )


def _standing(path: Path) -> Bundle | None:
    """The bundle at a path, whose plans can be taken over; None where none can be read."""
    try:
        return open_bundle(path, check="size")
    except BundleError:
        return None


def _refuse_unknown(io_dtype: str, opset: int) -> None:
    from tiedexport.trace import OPSETS

    if io_dtype not in ("fp32", "fp16"):
        raise UsageError("unknown I/O dtype", got=repr(io_dtype), expected="fp32 or fp16")
    if opset not in OPSETS:
        expected = f"{OPSETS.start} to {OPSETS.stop - 1}"
        raise UsageError("unsupported opset", got=opset, expected=expected)


def _asked(options: Options) -> Asked:
    from tiedexport.foreign.brought import Asked

    shape, samples = options.get("input_shape"), options.get("samples")
    axes = (shape,) if isinstance(shape, int) else tuple(shape or ())
    if shape is not None and (not axes or min(axes) < 1):
        raise UsageError(
            "no shape of an input", got=shape, expected="sizes from 1 on: 784, or 1,28,28"
        )
    return Asked(
        options.get("family"),
        options.get("settings") or {},
        axes or None,
        None if samples is None else Path(samples),
    )


def _beside(model: str) -> Path:
    """`model.tied` for `model.pt`, `Net.tied` in this folder for `package.module:Net`."""
    if live.is_reference(model) and not Path(model).exists():
        return Path(f"{model.rpartition(':')[2]}.tied")
    return Path(model).with_suffix(".tied")
