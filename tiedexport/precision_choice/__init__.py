"""Which type each tied weight needs, decided by evidence: `build --precision auto`.

The fp32 model runs on calibration data, and every number of every layer is looked at. A tie, that
is a weight with all layers that use it, gets fp16 unless overflow or underflow is predicted; then
bf16, if the error that is predicted for it is acceptable; else fp32. Two types across one tie would
store it twice, so layers that share a weight or a bias share a type.

* Range: the peak of a layer is that of its weights, biases, inputs, outputs and partial sums, where
  λ √(Σ t²) is added to the latter for terms t_j = w_j h_j (see `tiedexport.rounding`): what the sum
  reaches if its terms come in another order, or from another input with other signs.
* Error: `rounding.layer_bounds` with this tie alone in that type, as the root mean square over all
  samples and elements of the bound of the code, and of the reconstruction.
* Underflow: roundings of fp16 are eight times finer than those of bf16, so its error is the larger
  one only where many numbers underflow. That is harmless below an eighth of what is acceptable,
  which its roundings alone may come to.
* Acceptable: for the reconstruction the model's own test RMSE, where that is known: computing is
  then more exact than the model is. Else, and for the code: n λ u/√3 of its root mean square, for
  the n roundings on the way and the u of bf16. That is the bound of n errors that no layer
  amplifies, were they all to add up.

Each tie being acceptable alone, they may not be together: then those of the largest errors go to
fp32 until the rest is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiedexport.errors import UsageError
from tiedexport.precision_choice.evidence import Evidence
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from tiedexport.results.precision import TieChoice

    Weights = Mapping[str, NDArray[Any]]
    Types = Mapping[str, Precision]

_FP32, _FP16, _BF16 = Precision


@dataclass(frozen=True)
class Choice:
    """What to store a model in.

    Attributes:
        precisions: fp32, which holds the masters, and the 16-bit type of the most ties, if any.
        kept: precision → weight → its type, for those that have another; as in the manifest.
        ties: the evidence.
        lines: the same in words, a line a tie.
    """

    precisions: tuple[Precision, ...]
    kept: dict[Precision, dict[str, Precision]]
    ties: tuple[TieChoice, ...]
    lines: tuple[str, ...]


def choose(
    layers: Sequence[Layer],
    weights: Weights,
    samples: NDArray[Any],
    *,
    test_rmse: float | None = None,
    random_samples: bool = False,
    keep_fp32: Iterable[str] = (),
) -> Choice:
    """Choose the type of every tie.

    Args:
        layers: of the autoencoder, in order.
        weights: the fp32 masters by name; memory maps are read block by block.
        samples: calibration data [n, *element_shape], at least one.
        test_rmse: of the model's reconstructions on data that it had not seen, where known.
        random_samples: the samples are no data, which is then said.
        keep_fp32: weights that stay in fp32 whatever the evidence.

    Raises:
        UsageError: a name of `keep_fp32` is no weight of the layers.
        ValueError: the layers do not fit the weights.
    """
    asked = _named(layers, keep_fp32)
    evidence = Evidence(layers, weights, samples, test_rmse)
    ties = evidence.acceptable_together([evidence.judge(g, asked) for g in groups(layers)])
    drawn = ", random in [0, 1): no data was given" if random_samples else ""
    lines = (f"calibrated on {len(samples)} samples{drawn}; {evidence.scale}", *map(str, ties))
    halves = Counter(tie.precision for tie in ties if tie.precision is not _FP32)
    if not halves:
        return Choice((_FP32,), {}, ties, lines)
    base = max((_FP16, _BF16), key=lambda kind: halves[kind])
    others = {w: tie.precision for tie in ties if tie.precision is not base for w in tie.weights}
    return Choice((_FP32, base), {base: others} if others else {}, ties, lines)


def keep_in_fp32(
    layers: Sequence[Layer], names: Iterable[str], precisions: Iterable[Precision]
) -> dict[Precision, dict[str, Precision]]:
    """What the manifest keeps where some weights stay in fp32 in every precision.

    Raises:
        UsageError: a name is no weight of the layers.
    """
    asked = _named(layers, names)
    kept = {name: _FP32 for group in groups(layers) if asked & set(group) for name in group}
    return {p: dict(kept) for p in precisions if p is not _FP32 and kept}


def stored_types(
    layers: Iterable[Layer], precision: Precision, kept: Types
) -> dict[str, Precision]:
    """Weight or bias → the type that it is stored in."""
    return {
        name: kept.get(str(layer.weight), precision)
        for layer in layers
        if layer.op in WEIGHTED_OPS
        for name in (layer.weight, layer.bias)
        if name is not None
    }


def groups(layers: Iterable[Layer]) -> tuple[tuple[str, ...], ...]:
    """The weights, in order, grouped by what must be of one type: those that share a bias."""
    found: list[tuple[str, ...]] = []
    biases: dict[str, str] = {}
    for layer in layers:
        if layer.op not in WEIGHTED_OPS:
            continue
        weight = str(layer.weight)
        same = {weight, biases.setdefault(layer.bias or weight, weight)}
        joined = [group for group in found if same & set(group)]
        merged = tuple(dict.fromkeys([name for group in joined for name in group] + [weight]))
        place = found.index(joined[0]) if joined else len(found)
        found = [group for group in found if group not in joined]
        found.insert(place, merged)
    return tuple(found)


def _named(layers: Sequence[Layer], names: Iterable[str]) -> set[str]:
    known = list(dict.fromkeys(str(la.weight) for la in layers if la.op in WEIGHTED_OPS))
    asked = set(names)
    if unknown := sorted(asked - set(known)):
        raise UsageError(
            "no weight of this model to keep in fp32",
            got=", ".join(unknown),
            expected=", ".join(known),
        )
    return asked
