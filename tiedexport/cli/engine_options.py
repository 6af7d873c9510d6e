"""trtexec's words on the command line → `EngineOptions`."""

from __future__ import annotations

import functools
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_args

import click

from tiedexport.cli.options import PATH
from tiedexport.engine_words import (
    DEFAULT_PROFILE,
    MEMORY_POOLS,
    OPTIMIZATION_LEVELS,
    HardwareCompatibility,
    Profile,
    ProfilingVerbosity,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Shapes = dict[str, tuple[int, ...]]

_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([BKMG]?)")
_DIMENSIONS = re.compile(r"\d+(x\d+)*")


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command trtexec's options.

    The command is called with `engine_options`, an EngineOptions; `timing_cache`, a Path or None;
    and `profile_shapes`, input → its shape behind the batch axis where one was given, for
    `engine_options.check_shapes` to hold to the stages once they are known. Options that contradict
    each other, or the command's --weights, are refused.
    """

    @functools.wraps(command)
    def converted(
        min_shapes: tuple[Shapes, ...],
        opt_shapes: tuple[Shapes, ...],
        max_shapes: tuple[Shapes, ...],
        mem_pool_size: tuple[dict[str, int], ...],
        timing_cache_file: Path | None,
        hardware_compatibility_level: HardwareCompatibility,
        allow_weight_streaming: bool,
        **arguments: Any,
    ) -> None:
        from tiedexport.engine_options import EngineOptions, contradiction

        profiles = _profiles(min_shapes, opt_shapes, max_shapes)
        own = EngineOptions.__struct_fields__
        options = EngineOptions(
            profiles=profiles or (DEFAULT_PROFILE,),
            memory_pools={name: size for pools in mem_pool_size for name, size in pools.items()},
            hardware_compatibility=hardware_compatibility_level,
            weight_streaming=allow_weight_streaming,
            **{name: arguments.pop(name) for name in own if name in arguments},
        )
        # Without --weights, plans that stand can decide on it; then the builder refuses.
        if reason := contradiction(options, arguments.get("weights") or "baked"):
            raise click.UsageError(reason)
        command(
            engine_options=options,
            timing_cache=timing_cache_file,
            profile_shapes=_elements((*min_shapes, *opt_shapes, *max_shapes)),
            **arguments,
        )

    for option in reversed(_OPTIONS):
        converted = option(converted)
    return converted


def _converter(convert: Callable[[str], Any]) -> Callable[..., Any]:
    """A callback that converts each occurrence and shows what it cannot read."""

    def callback(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> Any:
        try:
            return tuple(convert(value) for value in values)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _shapes(text: str) -> Shapes:
    """`input:1x784,code:1` → {"input": (1, 784), "code": (1,)}."""
    shapes: Shapes = {}
    for part in text.split(","):
        name, colon, dimensions = part.rpartition(":")
        if not (name and colon) or not _DIMENSIONS.fullmatch(dimensions):
            raise ValueError(f"{part!r} is no NAME:SHAPE, such as input:8x784 or input:8")
        if name in shapes:
            raise ValueError(f"{name!r} is given twice")
        shapes[name] = tuple(int(size) for size in dimensions.split("x"))
    if len({batch for batch, *_ in shapes.values()}) > 1:
        raise ValueError(f"{text!r}: one profile has one batch for all inputs")
    return shapes


def _pools(text: str) -> dict[str, int]:
    """`workspace:1024,tacticSharedMem:48K` → bytes; a number alone is in MiB."""
    pools = {}
    for part in text.split(","):
        name, _, size = part.partition(":")
        number = _SIZE.fullmatch(size)
        if number is None:
            raise ValueError(f"{part!r} is no POOL:SIZE, such as workspace:1024 or workspace:1.5G")
        if name not in MEMORY_POOLS:
            raise ValueError(f"no memory pool {name!r}; known are {', '.join(MEMORY_POOLS)}")
        pools[name] = int(Decimal(number[1]) * _UNITS[number[2] or "M"])
    return pools


def _profiles(
    least: tuple[Shapes, ...], typical: tuple[Shapes, ...], most: tuple[Shapes, ...]
) -> tuple[Profile, ...]:
    """The i-th of each makes the i-th profile; as in trtexec, --optShapes alone fixes all three."""
    if typical and not least and not most:
        least = most = typical
    counts = len(least), len(typical), len(most)
    if len(set(counts)) > 1:
        raise click.UsageError(
            "--minShapes, --optShapes and --maxShapes go together, once a profile; "
            "given {}, {} and {} times".format(*counts)
        )
    return tuple(
        (_batch(low), _batch(middle), _batch(high))
        for low, middle, high in zip(least, typical, most, strict=True)
    )


def _batch(shapes: Shapes) -> int:
    return next(iter(shapes.values()))[0]


def _elements(occurrences: tuple[Shapes, ...]) -> Shapes:
    """Input → what stands behind its batch, which must not vary."""
    elements: Shapes = {}
    for name, (_, *element) in (pair for shapes in occurrences for pair in shapes.items()):
        known = elements.get(name, ())
        if known and element and known != tuple(element):
            raise click.UsageError(
                f"only the batch axis of a profile can vary: {name} is given as "
                f"{'x'.join(map(str, known))} and as {'x'.join(map(str, element))}"
            )
        elements[name] = tuple(element) or known
    return elements


_SHAPE: dict[str, Any] = {
    "multiple": True,
    "metavar": "input:1x784",
    "callback": _converter(_shapes),
}
_LEVELS = click.IntRange(OPTIMIZATION_LEVELS.start, OPTIMIZATION_LEVELS[-1])
_OPTIONS = (
    click.option("--minShapes", "min_shapes", help="Build with a profile with the min shapes "
                 "provided; input:1 will do. Repeat all three for more profiles.", **_SHAPE),
    click.option("--optShapes", "opt_shapes", help="Build with a profile with the opt shapes "
                 "provided; alone, they are min and max as well.", **_SHAPE),
    click.option("--maxShapes", "max_shapes", help="Build with a profile with the max shapes "
                 f"provided. Default: batches of {':'.join(map(str, DEFAULT_PROFILE))}.", **_SHAPE),
    click.option("--exactProfiles", "exact_profiles", is_flag=True, help="Build baked weights for "
                 "a batch of 1 alone, though it stores them twice."),
    click.option("--memPoolSize", "mem_pool_size", multiple=True, metavar="workspace:1024",
                 callback=_converter(_pools), help="Specify the size constraints of the memory "
                 f"pools {', '.join(MEMORY_POOLS)}, in MiB, or with B, K, M or G."),
    click.option("--builderOptimizationLevel", "builder_optimization_level", type=_LEVELS,
                 help="Set the builder optimization level; default: the builder's."),
    click.option("--timingCacheFile", "timing_cache_file", type=PATH, metavar="FILE",
                 help="Save/load the serialized global timing cache."),
    click.option("--versionCompatible", "version_compatible", is_flag=True,
                 help="Mark engine build mode as version compatible."),
    click.option("--hardwareCompatibilityLevel", "hardware_compatibility_level", default="none",
                 type=click.Choice(get_args(HardwareCompatibility)), show_default=True,
                 help="Make the engine file compatible with other GPU architectures."),
    click.option("--stripWeights", "strip_weights", is_flag=True,
                 help="Strip weights from plan; refitting puts them back."),
    click.option("--refit", is_flag=True, help="Mark the engine as refittable with identical "
                 "weights (REFIT_IDENTICAL: REFIT can drop a bias)."),
    click.option("--allowWeightStreaming", "allow_weight_streaming", is_flag=True,
                 help="Enable a weight streaming engine."),
    click.option("--profilingVerbosity", "profiling_verbosity", default="layer_names_only",
                 type=click.Choice(get_args(ProfilingVerbosity)), show_default=True,
                 help="Specify profiling verbosity."),
)  # fmt: skip
