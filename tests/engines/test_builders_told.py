"""What the configuration of each package has been told in the moment of building.

TensorRT builds nothing without a GPU, so TensorRT-RTX lends it its interface, which is the same.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from conftest import needs_rtx
from tied_graphs import baked_request

from tiedexport import trt
from tiedexport.engine_options import EngineOptions
from tiedexport.engines import builder_for
from tiedexport.engines import tensorrt as builders
from tiedexport.errors import MissingRuntimeError
from tiedexport.results import Availability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Tell = Callable[..., dict[str, Any]]

pytestmark = needs_rtx

OWN_FLAGS = {"tensorrt": set(), "rtx:sm80+sm89": {"REQUIRE_USER_ALLOCATION"}}
"""Target → what its builder is told whatever the options."""


@pytest.fixture(params=OWN_FLAGS)
def target(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def told(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Options of a request → what is read back where the plan would be built."""
    rtx = trt.load("tensorrt_rtx")
    lent = dataclasses.replace(rtx, package="tensorrt")
    monkeypatch.setattr(trt, "driver", lambda: Availability(True, "CUDA 13.0"))
    monkeypatch.setattr(trt, "driver_for", lambda package: Availability(True, "CUDA 13.0"))
    monkeypatch.setattr(trt, "device", lambda: trt.Device("a GPU", 89))
    monkeypatch.setattr(trt, "availability", lambda package: Availability(True, rtx.version))
    monkeypatch.setattr(trt, "load", {"tensorrt": lent, "tensorrt_rtx": rtx}.__getitem__)
    monkeypatch.setattr(builders, "_loads", lambda library: True)
    found: dict[str, Any] = {}

    @contextmanager
    def timing_cache(config: Any, file: Path | None) -> Iterator[None]:
        found["timing cache"] = file
        yield

    def read_back(parsed: Any, config: Any, progress: Any) -> bytes:
        flags, pools = rtx.module.BuilderFlag.__members__, rtx.module.MemoryPoolType
        found.update(
            flags={name for name, flag in flags.items() if config.get_flag(flag)},
            profiles=config.num_optimization_profiles,
            level=config.builder_optimization_level,
            verbosity=config.profiling_verbosity.name,
            workspace=config.get_memory_pool_limit(pools.WORKSPACE),
            progress=progress,
        )
        return b"plan"

    def tell(progress: Any = None, timing_cache: Path | None = None, **options: Any) -> Any:
        request = baked_request(
            tmp_path, target=target, options=EngineOptions(**options), timing_cache=timing_cache
        )
        found["engine"] = builder_for(target).build(request, progress)
        return found

    monkeypatch.setattr(builders, "timing_cache", timing_cache)
    monkeypatch.setattr(builders.plans, "build", read_back)
    return tell


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, set()),
        ({"refit": True}, {"REFIT_IDENTICAL"}),
        ({"strip_weights": True}, {"STRIP_PLAN", "REFIT_IDENTICAL"}),
        ({"version_compatible": True}, {"VERSION_COMPATIBLE"}),
    ],
)
def test_flags(options: dict[str, bool], flags: set[str], target: str, told: Tell) -> None:
    assert told(**options)["flags"] == flags | OWN_FLAGS[target]


def test_streamed_weights_need_a_plan_that_allocates(told: Tell) -> None:
    assert told(weight_streaming=True)["flags"] == {"WEIGHT_STREAMING"}


def test_values(told: Tell) -> None:
    found = told(
        builder_optimization_level=1,
        profiling_verbosity="detailed",
        memory_pools={"workspace": 2**28},
        profiles=((1, 1, 4), (1, 8, 16)),
    )
    assert (found["level"], found["verbosity"], found["workspace"]) == (1, "DETAILED", 2**28)
    assert found["profiles"] == 2


def test_profiles_are_those_that_are_recorded(told: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[EngineOptions] = []
    monkeypatch.setattr(builders, "configure", lambda *given: configured.append(given[2]))
    engine = told(profiles=((1, 1, 1),))["engine"]
    assert [engine.options] == configured
    assert engine.options.profiles == ((1, 1, 2),)
    assert "--exactProfiles insists" in engine.notes[0]


def test_progress_reaches_the_build(told: Tell) -> None:
    assert told(progress=print)["progress"] is print


@pytest.mark.parametrize("target", ["tensorrt"], indirect=True)
def test_the_timing_cache_is_that_of_the_request(told: Tell, tmp_path: Path) -> None:
    assert (
        told(timing_cache=tmp_path / "kernels.cache")["timing cache"] == tmp_path / "kernels.cache"
    )
    assert told()["timing cache"] is None


@pytest.mark.parametrize("target", ["tensorrt"], indirect=True)
def test_a_driver_older_than_the_package_is_told_before_the_library_is_called(
    told: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Availability(False, "CUDA 12.4", "serves programs up to CUDA 12.4", "update it to 580")
    monkeypatch.setattr(trt, "driver_for", lambda package: old)
    with pytest.raises(MissingRuntimeError, match=r"up to CUDA 12\.4[^$]*update it to 580"):
        told()


@pytest.mark.parametrize("target", ["tensorrt"], indirect=True)
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("device", trt.Device("another GPU", 89)),
        ("device", trt.Device("a GPU", 90)),
        ("load", trt.Handle(None, "tensorrt", "0.1", None)),
    ],
)
def test_plans_of_another_gpu_or_version_are_other_plans(
    name: str, found: object, target: str, told: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = builder_for(target).fingerprint(target)
    monkeypatch.setattr(trt, name, lambda *_: found)
    assert builder_for(target).fingerprint(target) != before
