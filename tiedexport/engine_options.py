"""What a TensorRT engine is built with, in the words of trtexec.

`contradiction` and `effective` hold what is true of every target; a builder adds what its own
targets cannot do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from tiedexport.engine_words import (
    DEFAULT_PROFILE,
    LARGEST_BATCH,
    MEMORY_POOLS,
    OPTIMIZATION_LEVELS,
    HardwareCompatibility,
    Profile,
    ProfilingVerbosity,
)
from tiedexport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tiedexport.spec import TensorSpec


class EngineOptions(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that changes the bytes of a plan besides its graph, target and package.

    Attributes:
        profiles: batch sizes, one triple an optimisation profile.
        exact_profiles: baked weights with min = opt = max = 1 as asked for, although such a
            profile makes the builder store a weight and its transpose.
        memory_pools: `--memPoolSize`: pool as trtexec names it ("workspace") → bytes.
        builder_optimization_level: 0 to 5; None is the builder's own.
        version_compatible, hardware_compatibility: plans for other versions, other devices.
        strip_weights: leave the weights out of a baked plan, to be put back by refitting.
        refit: weights of the plan can be replaced by identical ones (REFIT_IDENTICAL: plain REFIT
            can drop the bias of a product).
        weight_streaming: weights may stay in host memory.
        profiling_verbosity: what the plan keeps of its layers for profilers.
    """

    profiles: tuple[Profile, ...] = (DEFAULT_PROFILE,)
    exact_profiles: bool = False
    memory_pools: dict[str, int] = {}
    builder_optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    strip_weights: bool = False
    refit: bool = False
    weight_streaming: bool = False
    profiling_verbosity: ProfilingVerbosity = "layer_names_only"


def contradiction(options: EngineOptions, weights: str) -> str | None:
    """Why no target can build with these options, and what to do; None where one could.

    Args:
        options: as asked for.
        weights: "shared", "baked" or "one-plan".
    """
    try:
        msgspec.convert(msgspec.to_builtins(options), EngineOptions)
    except msgspec.ValidationError as error:
        return f"options of a wrong type: {error}"
    if not options.profiles:
        return "no profile; give at least one, such as --optShapes input:8"
    smallest = 0 if weights == "one-plan" else 1
    for profile in options.profiles:
        least, typical, most = profile
        if not smallest <= least <= typical <= most <= LARGEST_BATCH or typical < 1:
            return (
                f"the profile min {least}, opt {typical}, max {most} is impossible; "
                f"take 1 ≤ min ≤ opt ≤ max ≤ {LARGEST_BATCH}"
            )
    level = options.builder_optimization_level
    if level is not None and level not in OPTIMIZATION_LEVELS:
        return f"--builderOptimizationLevel {level} is not one of 0 to {OPTIMIZATION_LEVELS[-1]}"
    for pool, size in options.memory_pools.items():
        if pool not in MEMORY_POOLS:
            return f"no memory pool {pool!r}; known are {', '.join(MEMORY_POOLS)}"
        if size < 1:
            return f"--memPoolSize {pool}:{size}B leaves no memory; take 1 byte or more"
    return _needs_weights(options) if weights == "shared" else None


def effective(options: EngineOptions, weights: str) -> tuple[EngineOptions, tuple[str, ...]]:
    """The options that a plan is really built with, and what to tell the user of them.

    A baked profile of batch 1 alone makes the builder store a weight once for the product from the
    left and once, transposed, for that from the right; any larger batch makes it store one.
    """
    if weights == "one-plan":
        idle = tuple((0, typical, most) for _, typical, most in options.profiles)
        return msgspec.structs.replace(options, profiles=idle), ()
    if weights == "shared" or (1, 1, 1) not in options.profiles:
        return options, ()
    if options.exact_profiles:
        note = (
            "a profile of batch 1 alone, as --exactProfiles insists: "
            "the plan may hold a weight and its transpose"
        )
        return options, (note,)
    widened = tuple((1, 1, 2) if p == (1, 1, 1) else p for p in options.profiles)
    note = (
        "a profile of batch 1 alone would store a weight and its transpose: "
        "built for 1 to 2; --exactProfiles insists"
    )
    return msgspec.structs.replace(options, profiles=widened), (note,)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], inputs: Iterable[TensorSpec]) -> None:
    """Hold the shapes that profiles were given with to those of the stages.

    Args:
        shapes: input → its shape behind the batch axis; () where only a batch was given.
        inputs: those of every stage.

    Raises:
        UsageError: no stage has such an input, or it has another shape.
    """
    elements = {spec.name: spec.element_shape for spec in inputs}
    for name, shape in shapes.items():
        if name not in elements:
            raise UsageError(
                "a shape for an input that no stage has",
                got=name,
                expected=", ".join(elements),
            )
        if shape and shape != elements[name]:
            raise UsageError(
                "only the batch axis of a profile can vary",
                where=name,
                got="x".join(map(str, ("N", *shape))),
                expected="x".join(map(str, ("N", *elements[name]))),
            )


def _needs_weights(options: EngineOptions) -> str | None:
    flags = {
        "--stripWeights": options.strip_weights,
        "--refit": options.refit,
        "--allowWeightStreaming": options.weight_streaming,
    }
    for flag, given in flags.items():
        if given:
            return (
                f"{flag} is about weights in a plan, and shared ones are in none; --weights baked"
            )
    return None
