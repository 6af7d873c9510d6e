"""Tied stacks with tensors of unusual size, and what was chosen for them."""

from __future__ import annotations

import msgspec
import numpy as np
from simulated_roundings import Model, sparse_images, tied_stack

from tiedexport.precision_choice import Choice
from tiedexport.spec import Precision

WIDTHS = (61, 40, 31, 12)


def named(model: Model) -> Model:
    """The same with the code's name on the encoder's last layer."""
    layers, weights = model
    code = len(layers) // 2 - 1
    named = [msgspec.structs.replace(la, output=f"h{i}") for i, la in enumerate(layers)]
    named[code] = msgspec.structs.replace(layers[code], output="code")
    return named, weights


def stack(activation: str = "relu", seed: int = 0, **scales: float) -> Model:
    """A tied stack, some of its tensors scaled."""
    layers, weights = tied_stack(np.random.default_rng(seed), WIDTHS, activation, "random signs")
    scaled = {name: w * np.float32(scales.get(name, 1.0)) for name, w in weights.items()}
    return named((layers, scaled))


def samples(n: int = 32, seed: int = 1) -> np.ndarray:
    return sparse_images(np.random.default_rng(seed), n, WIDTHS[0]).astype(np.float32)


def types_of(choice: Choice) -> dict[str, Precision]:
    return {name: tie.precision for tie in choice.ties for name in tie.weights}


HUGE = {"w0": 1e5, "e0": 1e5, "w1": 1e-5, "d1": 1e-5}
"""A hidden activation of 1e5, which the next layer brings back to 1."""

TINY = {"w0": 1e-6, "e0": 1e-6, "w1": 1e3, "e1": 1e-3, "e2": 1e-3, "d2": 1e-3}
"""A hidden activation of 1e-6, which the next layer brings back to 1e-3."""
