"""Seconds and memory that `tiedexport audit` takes for a large ONNX file, in a fresh process.

python bench/audit_large.py [--width 16384]

The file declares one matrix twice, the second time transposed, and a thousand small weights, all in
external data: 2 GiB at the default width. The audit's own pages count, those of the page cache not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from onnx import TensorProto, helper
from record import record

from tiedexport.memory import PeakMemory

SMALL, SMALL_WIDTH = 1000, 64
BLOCK = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=16384)
    width = parser.parse_args().width
    with tempfile.TemporaryDirectory() as folder:
        model, result = Path(folder) / "large.onnx", Path(folder) / "audit.json"
        _write(model, width)
        stored_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
        idle_bytes, _ = _peak([sys.executable, "-m", "tiedexport", "audit", "--help"])
        command = [sys.executable, "-m", "tiedexport", "audit", str(model), "--json", str(result)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak_bytes, seconds = _peak(command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        stages = json.loads(result.read_bytes())["stages"]
    (row,) = [stage for stage in stages if stage["name"] == "ONNX files"]
    (tie,) = [tie for tie in row["ties"] if tie["stored_bytes"] > 4 * width * width]
    figures = {
        "width": width,
        "stored_bytes": stored_bytes,
        "copies": [copy["form"] for copy in tie["copies"]],
        "wall_s": seconds,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_pss_bytes": peak_bytes,
        "peak_above_help_mib": (peak_bytes - idle_bytes) / (1 << 20),
    }
    record("audit_large", figures)


def _peak(command: list[str]) -> tuple[int, float]:
    """The largest Pss of a command, and how long it took."""
    start = perf_counter()
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as audit,
        PeakMemory(audit.pid) as memory,
    ):
        audit.wait()
    if audit.returncode != 0:
        sys.exit(audit.returncode)
    return memory.peak_bytes, perf_counter() - start


def _write(path: Path, width: int) -> None:
    """An autoencoder y = Wᵀ(W x), then a thousand small products, its weights beside it."""
    random, data = np.random.default_rng(0), path.with_suffix(".data")
    names = ["w", "w_transposed", *(f"small_{i}" for i in range(SMALL))]
    with data.open("wb") as file:
        for start in range(0, width, BLOCK):
            rows = min(BLOCK, width - start)
            file.write(random.standard_normal((rows, width), dtype=np.float32))
        file.flush()
        w = np.memmap(data, np.float32, "r", shape=(width, width))
        for start in range(0, width, BLOCK):
            file.write(np.ascontiguousarray(w[:, start : start + BLOCK].T))
        for _ in range(SMALL):
            file.write(random.standard_normal((SMALL_WIDTH, SMALL_WIDTH), dtype=np.float32))
    shapes = [(width, width)] * 2 + [(SMALL_WIDTH, SMALL_WIDTH)] * SMALL
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("MatMul", ["z", "w_transposed"], ["y"]),
    ]
    values = ["s", *(f"s_{i}" for i in range(SMALL))]
    for name, (source, target) in zip(names[2:], pairwise(values), strict=True):
        nodes.append(helper.make_node("MatMul", [source, name], [target]))
    declare = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "large",
        [declare(n, TensorProto.FLOAT, ["batch", k]) for n, k in (("x", width), ("s", 64))],
        [declare(n, TensorProto.FLOAT, ["batch", k]) for n, k in (("y", width), (values[-1], 64))],
        list(_external(data.name, names, shapes)),
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def _external(location: str, names: list[str], shapes: list[tuple[int, int]]) -> list[TensorProto]:
    """Declarations of tensors that lie one after the other in a file."""
    declared, offset = [], 0
    for name, shape in zip(names, shapes, strict=True):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        size = 4 * shape[0] * shape[1]
        for key, value in (("location", location), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        declared.append(tensor)
        offset += size
    return declared


if __name__ == "__main__":
    main()
