"""Libraries' matrix products on the plain, row-major W: could larger batches be computed by one?

python bench/product_libraries.py LAYER.tied

One thread: OpenBLAS through numpy, MKL (fp32) and oneDNN (bf16) through torch, over all of W and in
tiles of 256 rows, beside the native runtime and ONNX Runtime's default.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport import open_bundle
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

TILE_ROWS = 256
ROUNDS = {8: 11, 64: 7, 256: 5}
BASE = "onnxruntime fp32 default"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="one layer, as `native.py --bundles FOLDER` keeps it")
    path = parser.parse_args().bundle
    import torch
    from contenders import WayContender, race, statistics, timed, turn_of
    from record import record
    from threadpoolctl import threadpool_limits
    from ways import Way

    torch.set_num_threads(1)
    threadpool_limits(1)
    weight = _weight(path)
    ways = [WayContender(way, path, 1) for way in (
        Way("native", "fp32"), Way("native", "bf16"), Way("onnxruntime", "fp32", "default"),
    )]  # fmt: skip
    cases: dict[str, Any] = {}
    for batch, rounds in ROUNDS.items():
        turns = {}
        for way in ways:
            name = str(way.way)
            turns[name] = turn_of(
                name, way.take_turn, way.prepare("autoencoder", batch, 0.2).call_s
            )
        for name, call in _products(weight, batch).items():
            call()
            turns[name] = turn_of(name, partial(timed, call), timed(call, 1)[0] / 1e9)
        found, _ = race(turns, rounds, 0.0)
        cases[f"batch {batch}"] = {
            name: statistics(seconds, found[BASE]) for name, seconds in found.items()
        }
    shown = {
        f"{case}: {name}": f"{one['median_s'] * 1e3:.1f} ms, {one['speed']:.2f} × {BASE}"
        for case, by in cases.items()
        for name, one in by.items()
    }
    record("product_libraries", {"threads": 1, "cases": cases}, shown)


def _weight(path: str) -> np.ndarray:
    bundle = open_bundle(path, check="size")
    (tie,) = bundle.manifest.ties
    return bundle.weights(Precision.FP32)[tie.weight]


def _products(weight: np.ndarray, batch: int) -> dict[str, Callable[[], object]]:
    """relu(x Wᵀ) W by name, without biases and the last activation, which cost next to nothing."""
    import torch

    x = np.random.default_rng(0).random((batch, weight.shape[1]), np.float32)
    single = torch.from_numpy(x), torch.from_numpy(weight.copy())
    half = tuple(tensor.bfloat16() for tensor in single)
    calls: dict[str, Callable[[], object]] = {}
    for rows in (len(weight), TILE_ROWS):
        how = "whole" if rows == len(weight) else f"tiles of {rows} rows"
        calls[f"OpenBLAS fp32, {how}"] = partial(_in_numpy, x, weight, rows)
        calls[f"MKL fp32, {how}"] = partial(_in_torch, *single, rows)
        calls[f"oneDNN bf16, {how}"] = partial(_in_torch, *half, rows)
    return calls


def _in_numpy(x: np.ndarray, weight: np.ndarray, rows: int) -> np.ndarray:
    y = np.zeros_like(x)
    for first in range(0, len(weight), rows):
        tile = weight[first : first + rows]
        y += np.maximum(x @ tile.T, 0.0) @ tile
    return y


def _in_torch(x: Any, weight: Any, rows: int) -> Any:
    import torch

    with torch.inference_mode():
        y = torch.zeros_like(x)
        for tile in weight.split(rows):
            y.addmm_(torch.relu(torch.nn.functional.linear(x, tile)), tile)
    return y


if __name__ == "__main__":
    main()
