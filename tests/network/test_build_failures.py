"""Why a builder failed: in its own words, each said once, and without what is not the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import needs_rtx

from tiedexport import trt
from tiedexport.bundle import Bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.export import build
from tiedexport.network import failures

NO_PLAN = "the builder returned no plan"
DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime "
    "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)"
)
WORKSPACE = "Myelin (no tactics to implement the operation within workspace limit)"
CUDA = "Myelin (MyelinCheckException: CHECK(status == CUDA_SUCCESS) failed.)"
MEMORY = "Error Code 2: OutOfMemory (Requested size was 68719476736 bytes.)"


class Handle:
    """A package that logs these errors meanwhile."""

    package, version = "tensorrt_rtx", "1.7.1"

    def __init__(self, *logged: str) -> None:
        self.logged = logged

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        yield list(self.logged)


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        ((), ()),
        ((WORKSPACE, DRIVER), (WORKSPACE,)),
        ((DRIVER, MEMORY, DRIVER, WORKSPACE), (MEMORY, WORKSPACE)),
        ((WORKSPACE, WORKSPACE), (WORKSPACE,)),
        ((DRIVER, DRIVER), (DRIVER,)),  # nothing else is known
        ((CUDA, DRIVER), (CUDA, DRIVER)),  # it is why CUDA failed
    ],
)
def test_a_missing_driver_is_told_only_where_it_can_be_the_reason(
    logged: tuple[str, ...], said: tuple[str, ...]
):
    with (
        pytest.raises(RuntimeFailedError) as caught,
        failures.translated(Handle(*logged), "decoder", "baked"),
    ):
        raise RuntimeError(NO_PLAN)
    assert caught.value.got == "; ".join((NO_PLAN, *said))


@needs_rtx
def test_one_reason_of_all_engines_is_one_line_of_the_error(dense_bundle: Bundle, tmp_path: Path):
    path = shutil.copytree(dense_bundle.path, tmp_path / "b.tied")
    tiny = EngineOptions(memory_pools={"workspace": 4})
    targets = ["rtx:sm80", "rtx:sm89"]
    with pytest.raises(MissingRuntimeError) as caught:
        build(path, target=targets, precision="fp16", engine_options=tiny)
    got = str(caught.value.got)
    assert got.startswith("rtx:sm80, rtx:sm89: tensorrt_rtx ")
    assert got.count("no tactics to implement the operation within workspace limit") == 1
    assert got.endswith("; give the builder more: --memPoolSize workspace:1024")
    assert "\n" not in got
    if not trt.driver().available:
        assert "driver" not in got
