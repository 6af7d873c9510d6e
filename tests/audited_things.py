"""Things to audit, each with one weight that is tied: as it should be, and broken on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from conftest import make_checkpoint
from retied import model, weight
from safetensors.numpy import save_file
from torch import nn
from untying_tools import TOOLS, applied

from tiedexport.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

W = weight(24, 40)
"""Less than a page: no process is started to look for a second copy in its memory."""

ENCODER = "enc (float[N, 40] x) => (float[N, 24] z) { z = Gemm <transB = 1> (x, w) }"
DECODER = (
    "dec (float[N, 24] z) => (float[N, 40] y) "
    "{ t = Transpose <perm = [1, 0]> (w) y = Gemm <transB = 1> (z, t) }"
)
BOTH = (
    "both (float[N, 40] x) => (float[N, 40] y) { z = Gemm <transB = 1> (x, w) "
    "t = Transpose <perm = [1, 0]> (w) y = Gemm <transB = 1> (z, t) }"
)
TWICE = (
    "twice (float[N, 40] x) => (float[N, 40] y) "
    "{ z = Gemm <transB = 1> (x, w) y = Gemm <transB = 1> (z, across) }"
)

Things = list[str]
HEALTHY: dict[str, Callable[[Path], Things]] = {}
BROKEN: dict[str, tuple[tuple[str, ...], Callable[[Path], Things]]] = {}
"""Name → the forms of the second and further copies, and what makes the things."""


def _healthy(build: Callable[[Path], Things]) -> Callable[[Path], Things]:
    HEALTHY[build.__name__] = build
    return build


def _broken(*forms: str) -> Callable[[Callable[[Path], Things]], Callable[[Path], Things]]:
    def keep(build: Callable[[Path], Things]) -> Callable[[Path], Things]:
        BROKEN[build.__name__] = forms, build
        return build

    return keep


def _onnx(path: Path, graph: str, data: str = "", **tensors: np.ndarray) -> str:
    """An ONNX file with its weights inline, or in the file `data` beside it."""
    made = model(graph, **tensors)
    onnx.save(made, path, save_as_external_data=bool(data), location=data, size_threshold=0)
    return str(path)


@_healthy
def checkpoint_of_ours(folder: Path) -> Things:
    save_checkpoint(folder / "model.pt", make_checkpoint("autoencoder", {"widths": [40, 24]}))
    return [str(folder / "model.pt")]


@_healthy
def state_dict_of_a_shared_parameter(folder: Path) -> Things:
    module = nn.ModuleDict({"enc": nn.Linear(24, 40), "dec": nn.Linear(24, 40)})
    module["dec"].weight = module["enc"].weight
    torch.save(module.state_dict(), folder / "shared.pt")
    return [str(folder / "shared.pt")]


@_healthy
def graph_with_a_transpose(folder: Path) -> Things:
    return [_onnx(folder / "both.onnx", BOTH, w=W)]


@_healthy
def two_graphs_on_one_data_file(folder: Path) -> Things:
    paths = [folder / "encoder.onnx", folder / "decoder.onnx"]
    for path, graph in zip(paths, (ENCODER, DECODER), strict=True):
        (folder / "weights.bin").unlink(missing_ok=True)
        _onnx(path, graph, "weights.bin", w=W)
    return [str(path) for path in paths]


@_broken("transposed")
def graph_with_a_stored_transpose(folder: Path) -> Things:
    return [_onnx(folder / "twice.onnx", TWICE, w=W, across=np.ascontiguousarray(W.T))]


@_broken("transposed")
def graph_with_external_data(folder: Path) -> Things:
    across = np.ascontiguousarray(W.T)
    return [_onnx(folder / "twice.onnx", TWICE, "twice.bin", w=W, across=across)]


@_broken("transposed")
def what_onnxslim_makes(folder: Path) -> Things:
    path = folder / "both.onnx"
    _onnx(path, BOTH, w=W)
    return [str(applied(TOOLS["onnxslim"], path))]


@_broken("same")
def two_files_with_a_weight_each(folder: Path) -> Things:
    return [
        _onnx(folder / "encoder.onnx", ENCODER, w=W),
        _onnx(folder / "decoder.onnx", DECODER, w=W),
    ]


@_broken("cast and transposed")
def two_files_in_two_types(folder: Path) -> Things:
    half = DECODER.replace("float[", "float16[").replace("t = Transpose <perm = [1, 0]> (w) ", "")
    return [
        _onnx(folder / "encoder.onnx", ENCODER, w=W),
        _onnx(folder / "decoder.onnx", half, t=np.ascontiguousarray(W.T).astype(np.float16)),
    ]


@_broken("transposed")
def state_dict_with_a_stored_transpose(folder: Path) -> Things:
    weights = torch.from_numpy(W)
    state = {"enc.weight": weights, "dec.weight": weights.t().contiguous()}
    torch.save({"epoch": 3, "model": state}, folder / "lost.pt")
    return [str(folder / "lost.pt")]


@_broken("transposed")
def safetensors_with_a_stored_transpose(folder: Path) -> Things:
    tensors = {"enc.weight": W, "dec.weight": np.ascontiguousarray(W.T)}
    save_file(tensors, folder / "lost.safetensors")
    return [str(folder / "lost.safetensors")]


@_broken("cast")
def two_safetensors_of_two_types(folder: Path) -> Things:
    save_file({"weight": W}, folder / "a.safetensors")
    save_file({"weight": W.astype(np.float16)}, folder / "b.safetensors")
    return [str(folder / f"{name}.safetensors") for name in "ab"]
