"""What a TensorRT engine is built with, in the words of trtexec."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Profile = tuple[int, int, int]
"""Smallest, typical and largest batch."""

HardwareCompatibility = Literal["none", "ampere+", "sameComputeCapability"]
ProfilingVerbosity = Literal["layer_names_only", "detailed", "none"]

DEFAULT_PROFILE: Profile = (1, 8, 256)


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
