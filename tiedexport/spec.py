"""What a model is, in types that the authoring and the deploying side share."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

STAGE_OF_VERB = {"encode": "encoder", "decode": "decoder", "reconstruct": "autoencoder"}
"""The verb of a session and of the command line → the stage that it runs."""

CODE_IN = "code_in"
"""The decoder half's input in an engine that holds both halves; its other tensors keep their
names."""

LayerOp = Literal["dense", "conv", "conv_transpose", "relu", "gelu", "tanh", "sigmoid", "reshape"]
WEIGHTED_OPS = frozenset({"dense", "conv", "conv_transpose"})
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid")


class Precision(str, Enum):
    """A floating-point type that weights are stored in and stages are computed in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype (bf16 comes from ml_dtypes, imported only then)."""
        if self is Precision.BF16:
            import ml_dtypes

            bf16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return bf16
        return np.dtype(np.float16 if self is Precision.FP16 else np.float32)

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return 4 if self is Precision.FP32 else 2

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding to nearest: 2^-24, 2^-11, 2^-8."""
        return math.ldexp(1.0, {"fp32": -24, "fp16": -11, "bf16": -8}[self.value])

    @property
    def underflow(self) -> float:
        """Largest absolute error of rounding a subnormal: half the smallest positive number."""
        return math.ldexp(1.0, {"fp32": -150, "fp16": -25, "bf16": -134}[self.value])

    @property
    def largest(self) -> float:
        """The largest finite number."""
        exponent, fraction_bits = {"fp32": (127, 23), "fp16": (15, 10), "bf16": (127, 7)}[
            self.value
        ]
        return math.ldexp(2.0 - math.ldexp(1.0, -fraction_bits), exponent)

    def __str__(self) -> str:
        return self.value


class TensorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Name, type and shape of a stage's input or output; a string is a dynamic axis."""

    name: str
    dtype: Precision
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The shape behind the batch axis, which is the first and only dynamic one."""
        return tuple(int(n) for n in self.shape[1:])


class Layer(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One step of a stage: what a runtime without ONNX, and the error bound, need to know.

    `dense` is y = x Wᵀ + b, or y = x W + b where `transposed`; `conv` and `conv_transpose` are
    ONNX's Conv and ConvTranspose over two spatial axes with symmetric `pads` (height, width);
    activations act element by element; `reshape` keeps the batch axis. `output` is the name of the
    ONNX value that holds the result, the same in every precision.
    """

    op: LayerOp
    weight: str | None = None
    bias: str | None = None
    transposed: bool = False
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    output: str = ""


class StageSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the model that runs on its own: `encoder`, `decoder`, `autoencoder`."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...] = ()


class Tie(Struct, frozen=True, forbid_unknown_fields=True):
    """One stored weight and every place that uses it, in words."""

    weight: str
    uses: tuple[str, ...]


class DataRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """Which data a model was trained on, exactly enough to load the same test set again.

    `source` is a name or path as the user gave it, `options` the loader's arguments, `sha256` the
    digest of the training, validation and test arrays, `train`, `validation`, `test` their lengths.
    """

    source: str
    options: dict[str, int]
    sample_shape: tuple[int, ...]
    train: int
    validation: int
    test: int
    sha256: str


class TrainingRecord(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model came to be: its recipe, its data, and what it reached on data it had not seen.

    `processes` is how many trained it at the end, `sharded` whether each held a part of it.
    """

    recipe: dict[str, Any]
    data: DataRecord
    epochs: int
    seed: int
    best_epoch: int
    validation_rmse: float
    test_rmse: float
    pca_test_rmse: float
    parameters: int
    untied_parameters: int
    train_loss_history: tuple[float, ...]
    validation_rmse_history: tuple[float, ...]
    seconds: float
    processes: int = 1
    sharded: bool = False


def precisions_from(names: str | Iterable[str | Precision]) -> tuple[Precision, ...]:
    """`"fp32,fp16"` or any iterable of names → precisions, in order, each once.

    Raises:
        UsageError: a name is no precision.
    """
    from tiedexport.errors import UsageError

    wanted = names.split(",") if isinstance(names, str) else list(names)
    known = {p.value: p for p in Precision}
    chosen: dict[Precision, None] = {}
    for name in wanted:
        key = name.value if isinstance(name, Precision) else name.strip().lower()
        if key not in known:
            alone = "auto stands alone, where a model is built: tiedexport build model.pt"
            hint = alone if key == "auto" else None
            raise UsageError(
                "unknown precision", got=repr(key), expected=", ".join(known), hint=hint
            )
        chosen[known[key]] = None
    if not chosen:
        raise UsageError("no precision given", expected=", ".join(known))
    return tuple(chosen)
