"""Each operand and the result of a product is held to its type: a later parser may mix them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tiedexport.network import products
from tiedexport.spec import Layer, Precision

FP32, FP16, _ = Precision
LAYERS = (Layer("dense", "w", "b"), Layer("relu"), Layer("conv_transpose", "k"))


def product(kind: str, *types: str) -> Any:
    """A product with operands of these types, and a result of the last."""
    *operands, result = [SimpleNamespace(dtype=SimpleNamespace(name=name)) for name in types]
    return SimpleNamespace(kind=kind, name="it", inputs=(*operands, None), outputs=(result,))


def checked(dense: tuple[str, str, str], kept: dict[str, Precision] | None = None) -> None:
    nodes = (
        product("MATRIX_MULTIPLY", *dense),
        SimpleNamespace(kind="ACTIVATION"),
        product("DECONVOLUTION", "HALF", "HALF", "HALF"),
    )
    products.check(SimpleNamespace(nodes=nodes), LAYERS, FP16, kept or {})


def test_products_of_the_type_asked_for_pass():
    checked(("HALF", "HALF", "HALF"))
    checked(("FLOAT", "FLOAT", "FLOAT"), {"w": FP32})


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("other", ["FLOAT", "BF16", "FP8"])
def test_one_other_type_is_enough_to_refuse_a_product(place: int, other: str):
    types = ["HALF"] * 3
    types[place] = other
    with pytest.raises(RuntimeError, match=r"layer it computes .* asked for fp16"):
        checked(tuple(types))


@pytest.mark.parametrize("kept", [{"w": FP32}, {"k": FP32}])
def test_what_is_kept_in_another_type_must_have_that(kept: dict[str, Precision]):
    with pytest.raises(RuntimeError, match="computes fp16, fp16 → fp16, asked for fp32"):
        checked(("HALF", "HALF", "HALF"), kept)


def test_a_product_too_few_is_refused():
    parsed = SimpleNamespace(nodes=(product("CONVOLUTION", "HALF", "HALF", "HALF"),))
    with pytest.raises(RuntimeError, match="1 products in the network, 2 in the stage"):
        products.check(parsed, LAYERS, FP16, {})
