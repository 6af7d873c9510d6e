"""What a builder's configuration is told, on a double that has what the real class has."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import needs_rtx

from tiedexport import trt
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import BadInputError
from tiedexport.manifest import Binding
from tiedexport.network.config import configure, timing_cache
from tiedexport.spec import Precision

BINDINGS = (
    Binding("input", "input", Precision.FP32, (-1, 784)),
    Binding("code_in", "input", Precision.FP32, (-1, 196)),
    Binding("w", "weight", Precision.FP16, (196, 784)),
    Binding("code", "output", Precision.FP32, (-1, 196)),
)


class Cache:
    """A timing cache whose kernels are lines of its file."""

    def __init__(self, content: bytes) -> None:
        self.kernels = set(content.split())

    def combine(self, input_cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.kernels |= input_cache.kernels
        return True

    def serialize(self) -> bytes:
        return b" ".join(sorted(self.kernels))


class Config:
    """An IBuilderConfig that remembers; what the real one lacks, it lacks too."""

    def __init__(self, module: Any) -> None:
        vars(self).update(module=module, told=[], cache=None)

    def __getattr__(self, name: str) -> Any:
        getattr(self.module.IBuilderConfig, name)
        return lambda *arguments: self.told.append((name, *arguments))

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self.module.IBuilderConfig, name)
        self.told.append((name, value))

    def create_timing_cache(self, content: bytes) -> Cache | None:
        return None if content == b"damaged" else Cache(content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        vars(self)["cache"] = cache
        return b"of-another-device" not in cache.kernels


class Profile(dict):
    """An IOptimizationProfile."""

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self[name] = shapes


@pytest.fixture
def module() -> Any:
    return trt.load("tensorrt_rtx").module


def told(module: Any, **changes: Any) -> list[tuple[Any, ...]]:
    """What the configuration hears of options."""
    config = Config(module)
    configure(parsed(module), config, EngineOptions(**changes), BINDINGS)
    return config.told


def parsed(module: Any, *logged: str) -> Any:
    @contextmanager
    def errors():
        yield list(logged)

    handle = SimpleNamespace(module=module, errors=errors)
    builder = SimpleNamespace(create_optimization_profile=Profile)
    return SimpleNamespace(handle=handle, builder=builder)


@needs_rtx
def test_without_options_tf32_is_off_and_there_is_one_profile(module):
    assert told(module) == [
        ("clear_flag", module.BuilderFlag.TF32),
        ("profiling_verbosity", module.ProfilingVerbosity.LAYER_NAMES_ONLY),
        (
            "add_optimization_profile",
            {
                "input": ((1, 784), (8, 784), (256, 784)),
                "code_in": ((1, 196), (8, 196), (256, 196)),
            },
        ),
    ]


@needs_rtx
@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"refit": True}, ["REFIT_IDENTICAL"]),
        ({"strip_weights": True}, ["STRIP_PLAN", "REFIT_IDENTICAL"]),
        ({"strip_weights": True, "refit": True}, ["STRIP_PLAN", "REFIT_IDENTICAL"]),
        ({"version_compatible": True}, ["VERSION_COMPATIBLE"]),
        ({"weight_streaming": True}, ["WEIGHT_STREAMING"]),
    ],
)
def test_flags_are_those_of_trtexec_but_never_plain_refit(changes, flags, module):
    set_ = [value for name, value in told(module, **changes) if name == "set_flag"]
    assert set_ == [getattr(module.BuilderFlag, flag) for flag in flags]


@needs_rtx
def test_values_reach_the_builder_in_its_own_words(module):
    heard = told(
        module,
        memory_pools={"workspace": 2**30, "tacticSharedMem": 2**16},
        builder_optimization_level=0,
        hardware_compatibility="ampere+",
        profiling_verbosity="detailed",
        profiles=((1, 1, 1), (0, 4, 8)),
    )
    pools, levels = module.MemoryPoolType, module.HardwareCompatibilityLevel
    assert heard[1:6] == [
        ("set_memory_pool_limit", pools.WORKSPACE, 2**30),
        ("set_memory_pool_limit", pools.TACTIC_SHARED_MEMORY, 2**16),
        ("builder_optimization_level", 0),
        ("hardware_compatibility_level", levels.AMPERE_PLUS),
        ("profiling_verbosity", module.ProfilingVerbosity.DETAILED),
    ]
    profiles = [values[0]["input"] for name, *values in heard if name.startswith("add_")]
    assert profiles == [((1, 784), (1, 784), (1, 784)), ((0, 784), (4, 784), (8, 784))]


@needs_rtx
def test_the_same_compute_capability_is_a_level_too(module):
    level = module.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    heard = told(module, hardware_compatibility="sameComputeCapability")
    assert ("hardware_compatibility_level", level) in heard


@needs_rtx
def test_what_tensorrt_only_logs_stops_the_build(module):
    refusing = parsed(module, "Setting DLA memory pool size with DLA disabled")
    with pytest.raises(RuntimeError, match="an option was refused"):
        configure(refusing, Config(module), EngineOptions(), BINDINGS)


@needs_rtx
def test_a_timing_cache_grows_by_what_is_measured(module, tmp_path: Path):
    file = tmp_path / "new" / "kernels.cache"
    for kernel in (b"gemm", b"conv"):
        config = Config(module)
        with timing_cache(config, file):
            config.cache.kernels.add(kernel)
    assert file.read_bytes() == b"conv gemm"


@needs_rtx
def test_builds_at_the_same_time_lose_nothing_of_each_other(module, tmp_path: Path):
    file = tmp_path / "kernels.cache"
    one, other = Config(module), Config(module)
    with timing_cache(one, file):
        with timing_cache(other, file):
            other.cache.kernels.add(b"theirs")
        one.cache.kernels.add(b"ours")
    assert file.read_bytes() == b"ours theirs"


@needs_rtx
def test_a_build_that_fails_leaves_the_timing_cache_alone(module, tmp_path: Path):
    file = tmp_path / "kernels.cache"
    file.write_bytes(b"gemm")

    def build() -> None:
        config = Config(module)
        with timing_cache(config, file):
            config.cache.kernels.add(b"half measured")
            raise RuntimeError("no plan")

    with pytest.raises(RuntimeError, match="no plan"):
        build()
    assert file.read_bytes() == b"gemm"


@needs_rtx
@pytest.mark.parametrize("content", [b"damaged", b"of-another-device"])
def test_a_timing_cache_of_no_use_is_refused_and_kept(content, module, tmp_path: Path):
    file = tmp_path / "kernels.cache"
    file.write_bytes(content)
    with (
        pytest.raises(BadInputError, match=r"another device or version[^$]*kernels\.cache"),
        timing_cache(Config(module), file),
    ):
        pytest.fail("nothing is built")
    assert file.read_bytes() == content


@needs_rtx
def test_a_folder_is_no_timing_cache(module, tmp_path: Path):
    with (
        pytest.raises(BadInputError, match="cannot be read"),
        timing_cache(Config(module), tmp_path),
    ):
        pytest.fail("nothing is built")


def test_no_timing_cache_is_none_asked_for():
    with timing_cache(None, None):
        pass
