"""Options in trtexec's words → the configuration of a TensorRT builder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tiedexport import atomic
from tiedexport.engine_options import EngineOptions
from tiedexport.engine_words import MEMORY_POOLS, Profile
from tiedexport.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tiedexport.manifest import Binding
    from tiedexport.network import Parsed

_COMPATIBILITY = {"ampere+": "AMPERE_PLUS", "sameComputeCapability": "SAME_COMPUTE_CAPABILITY"}


def configure(
    parsed: Parsed, config: Any, options: EngineOptions, bindings: Iterable[Binding]
) -> None:
    """Tell a builder's configuration what both packages know.

    Args:
        parsed: the network.
        config: an IBuilderConfig.
        options: as effective; what the package cannot do was refused before.
        bindings: those of the network; each input with a batch axis gets the profiles.

    Raises:
        RuntimeError: TensorRT refused one; what it logged says why. It would build all the same.
    """
    with parsed.handle.errors() as refused:
        _set_flags(parsed.handle.module, config, options)
        _set_values(parsed.handle.module, config, options)
        for profile in options.profiles:
            config.add_optimization_profile(_profile(parsed, bindings, profile))
    if refused:
        raise RuntimeError("an option was refused")


@contextmanager
def timing_cache(config: Any, file: Path | None) -> Iterator[None]:
    """Let a build use the kernels that a file knows, and add what it measures to the file.

    Builds of several processes may share the file: each adds to what the others have written.

    Raises:
        BadInputError: the file cannot be read, or is of another device or version.
    """
    if file is None:
        yield
        return
    cache = config.create_timing_cache(_read(file))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BadInputError(
            "the timing cache is of no use to this builder",
            where=file,
            got="damaged, or of another device or version",
            hint=f"remove it, or take another --timingCacheFile than {file}",
        )
    yield
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.locked(file.parent):
        others = config.create_timing_cache(_read(file))
        if others is not None:
            cache.combine(others, ignore_mismatch=False)
        atomic.write(file, bytes(cache.serialize()))


def _set_flags(module: Any, config: Any, options: EngineOptions) -> None:
    # A TF32 product keeps 10 bits of its operands: that is not fp32.
    config.clear_flag(module.BuilderFlag.TF32)
    flags = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "STRIP_PLAN": options.strip_weights,
        # A stripped plan is worth something only if it can be refitted.
        "REFIT_IDENTICAL": options.refit or options.strip_weights,
        "WEIGHT_STREAMING": options.weight_streaming,
    }
    for name, wanted in flags.items():
        if wanted:
            config.set_flag(getattr(module.BuilderFlag, name))


def _set_values(module: Any, config: Any, options: EngineOptions) -> None:
    for pool, size in options.memory_pools.items():
        config.set_memory_pool_limit(getattr(module.MemoryPoolType, MEMORY_POOLS[pool]), size)
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    if options.hardware_compatibility != "none":
        level = _COMPATIBILITY[options.hardware_compatibility]
        config.hardware_compatibility_level = getattr(module.HardwareCompatibilityLevel, level)
    verbosity = options.profiling_verbosity.upper()
    config.profiling_verbosity = getattr(module.ProfilingVerbosity, verbosity)


def _profile(parsed: Parsed, bindings: Iterable[Binding], batches: Profile) -> Any:
    """Batch sizes for the data inputs; weights keep the one shape they have."""
    profile = parsed.builder.create_optimization_profile()
    for binding in bindings:
        if binding.role == "input":
            shapes = [(batch, *binding.shape[1:]) for batch in batches]
            profile.set_shape(binding.name, *shapes)
    return profile


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BadInputError(
            "the timing cache cannot be read", where=file, got=error.strerror
        ) from error
