"""Layers that torch quantised: each packs a weight of its own, tied or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tiedexport.results.ties import Finding
from tiedexport.ties.held import walk
from tiedexport.ties.lines import access

if TYPE_CHECKING:
    from tiedexport.ties.weights import Weight

KIND = "tie lost by quantisation"
INSTEAD = "tiedexport build MODEL --precision fp16  # half the bytes, and one copy"


def layers(module: nn.Module) -> dict[str, Tensor]:
    """Path → weight of every quantised layer: its `weight` is a method that unpacks it."""
    found: dict[str, Tensor] = {}
    for path, one in walk(module):
        if callable(unpack := getattr(one, "weight", None)) and hasattr(one, "_packed_params"):
            found[path] = unpack()
    return found


def findings(module: nn.Module, weights: list[Weight]) -> list[Finding]:
    """Packed weights that repeat each other, or a Parameter, to within their rounding."""
    packed = [(path, weight) for path, weight in layers(module).items() if weight.is_quantized]
    others = [(path, weight.dequantize(), weight) for path, weight in packed]
    found = []
    for index, (path, quantised) in enumerate(packed):
        floats = [(w.first.name, w.first.tensor.detach()) for w in weights]
        floats += [(other, values) for other, values, _ in others[:index]]
        for name, values in floats:
            if _near(quantised, values):
                found.append(
                    Finding(
                        KIND,
                        f"{name} and {path}",
                        "each quantised layer packs a weight of its own: two copies in memory "
                        "and in every file, and a forward pass that reads the Parameter of "
                        f"{access(path)} fails",
                        INSTEAD,
                    )
                )
                break
    return found


def _near(quantised: Tensor, values: Tensor) -> bool:
    """Whether the values, or their transpose, round to what was packed: within one step."""
    packed = quantised.dequantize()
    per_channel = quantised.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
    scales = quantised.q_per_channel_scales() if per_channel else torch.tensor(quantised.q_scale())
    step = float(scales.max())
    if packed.std() <= step:
        return False
    turned = (values, values.t()) if values.ndim == 2 else (values,)
    return any(
        one.shape == packed.shape and bool(((one - packed).abs() <= step).all()) for one in turned
    )
