"""Sessions hold one copy of each weight, however many stages and processes have it open.

The weight is small here: what a process holds besides it, as much for a tiny model of the same
width, is measured in the same process and allowed on top.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import needs_native

from tiedexport.bundle import open_bundle
from tiedexport.memory import data_pss_bytes, private_bytes
from tiedexport.runtimes import Options, runtime_named
from tiedexport.runtimes.onnxruntime import session_options
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path
    from typing import Self

    from tiedexport.session import Session

MIB = 1 << 20
INPUTS, CODE = 2048, 4096
BUFFERS_BYTES = 4 * MIB
"""What a library's kernels may work in, whatever the size of the weight: tiles, packed inputs.
Allowed below the weight too: a session may take again what the tiny model's left to its process."""

NATIVE = pytest.param("native", marks=needs_native)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`large.tied` has a weight of 32 MiB in fp32, `tiny.tied` one of no size."""
    from conftest import make_checkpoint

    from tiedexport.checkpoint import save_checkpoint
    from tiedexport.export import build

    folder = tmp_path_factory.mktemp("one-copy")
    for name, code in (("tiny", 2), ("large", CODE)):
        checkpoint = make_checkpoint("autoencoder", {"widths": [INPUTS, code]})
        save_checkpoint(folder / f"{name}.pt", checkpoint)
        build(folder / f"{name}.pt", folder / f"{name}.tied", precision="fp32,fp16,bf16", target=())
    return folder


class Child:
    """A process of its own that opens the large model in one precision after another."""

    def __init__(self, folder: Path, runtime: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(childs_end, folder, runtime))
        self._process.start()
        childs_end.close()

    def hold(self, precision: str) -> None:
        """Close what is open, and keep every stage open after runs at batch 1 and 8."""
        self._pipe.send(precision)
        self._base_bytes, self.allowance_bytes = self._pipe.recv()

    @property
    def growth_bytes(self) -> int:
        """Data that it holds now and did not before it opened the large model."""
        assert self._process.pid is not None
        return data_pss_bytes(self._process.pid) - self._base_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, folder: Path, runtime: str) -> None:
    def opened(name: str) -> Session:
        bundle = open_bundle(folder / f"{name}.tied", check="size")
        session = open_session(bundle, runtime=runtime, precision=precision, threads=1)
        for stage in bundle.manifest.stages:
            for batch in (1, 8):
                x = np.full((batch, *stage.inputs[0].element_shape), 0.5, np.float32)
                session.run(stage.name, x)
        return session

    with contextlib.suppress(EOFError), contextlib.ExitStack() as kept:
        while True:
            precision = pipe.recv()
            kept.close()
            opened("tiny").close()  # loads libraries, starts threads
            before = data_pss_bytes()
            tiny = opened("tiny")
            allowance_bytes = BUFFERS_BYTES + max(0, data_pss_bytes() - before)
            tiny.close()
            base_bytes = data_pss_bytes()
            kept.enter_context(opened("large"))
            pipe.send((base_bytes, allowance_bytes))


def weight_bytes(precision: Precision) -> int:
    return INPUTS * CODE * precision.itemsize


@pytest.mark.parametrize("runtime", [NATIVE, "onnxruntime", "torch", "reference"])
def test_one_process_holds_each_weight_once_unless_the_runtime_says_otherwise(
    folder: Path, runtime: str
):
    bundle = open_bundle(folder / "large.tied", check="size")
    row, once = runtime_named(runtime), []
    with Child(folder, runtime) as child:
        for precision in Precision:
            if row.refusal(bundle, precision) or row.hidden_copies(bundle, precision):
                continue
            child.hold(precision)
            weight = weight_bytes(precision)
            least, most = weight - BUFFERS_BYTES, 1.10 * weight + child.allowance_bytes
            assert least <= child.growth_bytes <= most
            once.append(precision)
    assert Precision.FP32 in once


@pytest.mark.parametrize("runtime", [NATIVE, "onnxruntime"])
def test_two_processes_hold_each_weight_once_together(folder: Path, runtime: str):
    weight = weight_bytes(Precision.FP32)
    with Child(folder, runtime) as one, Child(folder, runtime) as other:
        one.hold("fp32")
        other.hold("fp32")
        growth = one.growth_bytes + other.growth_bytes
        most = 1.15 * weight + one.allowance_bytes + other.allowance_bytes
        assert weight - BUFFERS_BYTES <= growth <= most


def test_a_runtime_that_is_said_to_store_weights_again_does(folder: Path):
    bundle = open_bundle(folder / "large.tied", check="size")
    assert "fp32" in str(runtime_named("onnxruntime").hidden_copies(bundle, Precision.FP16))
    with Child(folder, "onnxruntime") as child:
        child.hold("fp16")
        assert child.growth_bytes > 2 * weight_bytes(Precision.FP16) + child.allowance_bytes


@pytest.mark.parametrize("runtime", [NATIVE, "onnxruntime", "torch"])
def test_opening_and_closing_leaves_memory_where_it_was(folder: Path, runtime: str):
    bundle = open_bundle(folder / "large.tied", check="size")

    def private_bytes_after(opens: int) -> int:
        for _ in range(opens):
            with open_session(bundle, runtime=runtime, precision="fp32", threads=1) as session:
                for stage in bundle.manifest.stages:
                    session.run(stage.name, np.zeros((1, *stage.inputs[0].element_shape), "f4"))
        gc.collect()
        return private_bytes()

    # The allocator of a process that has done much else grows now and then; a leak always does.
    held = [private_bytes_after(opens) for opens in (3, 20, 20, 20)]
    assert min(after - before for before, after in pairwise(held)) < 4 * MIB


def test_the_optimised_graph_of_a_convolution_stores_no_kernel_of_its_own(tmp_path: Path):
    from conftest import make_checkpoint

    from tiedexport.checkpoint import save_checkpoint
    from tiedexport.export import build

    # Channels in sixteens: what ONNX Runtime stores again in blocks at its last level.
    fields = {"image": [8, 8], "channels": [16, 32, 32]}
    save_checkpoint(tmp_path / "m.pt", make_checkpoint("conv", fields))
    build(tmp_path / "m.pt", tmp_path / "m.tied", precision="fp32", target=())
    bundle = open_bundle(tmp_path / "m.tied")
    for stage in ("encoder", "decoder", "autoencoder"):
        options = session_options(Options("shared", threads=1))
        options.optimized_model_filepath = str(tmp_path / f"{stage}.onnx")
        onnxruntime.InferenceSession(str(bundle.graph(stage, Precision.FP32)), options)
        stored = onnx.load(options.optimized_model_filepath, load_external_data=False)
        assert {tensor.name for tensor in stored.graph.initializer} <= set(
            bundle.weights(Precision.FP32)
        )
        assert all(not tensor.raw_data for tensor in stored.graph.initializer)
