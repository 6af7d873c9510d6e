"""Bare state dicts: widths, order, ties and biases are read off, or the dict is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import five_ways
import pytest
import torch
from conftest import MODELS, make_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from tiedexport.errors import CheckpointError
from tiedexport.foreign import checkpoint
from tiedexport.foreign.brought import Asked

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tiedexport.foreign.brought import Brought

pytestmark = pytest.mark.usefixtures("quick_export")

ASKED = Asked(family="autoencoder")
WIDTHS = (20, 13, 7)


def read(state: dict[str, Any], folder: Path, suffix: str = ".pt", asked: Asked = ASKED) -> Brought:
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return checkpoint(path, asked)


def refused(state: dict[str, Any], folder: Path, match: str, suffix: str = ".pt") -> str:
    with pytest.raises(CheckpointError, match=match) as caught:
        read(state, folder, suffix)
    assert str(folder) in str(caught.value.where)
    return str(caught.value)


def mirrored(widths: tuple[int, ...] = WIDTHS, *, tied: bool, bias: bool = True) -> nn.ModuleDict:
    """nn.Linear layers to the code and back, the decoder registered first."""
    torch.manual_seed(0)
    encoder = nn.Sequential(*[nn.Linear(a, b, bias) for a, b in pairwise(widths)])
    decoder = nn.Sequential(*[nn.Linear(a, b, bias) for a, b in pairwise(widths[::-1])])
    if tied:
        for one, other in zip(encoder, reversed(decoder), strict=True):
            other.weight = nn.Parameter(one.weight.detach().t().contiguous())
    return nn.ModuleDict({"decoder": decoder, "encoder": encoder})


def computed(module: nn.ModuleDict, x: Tensor) -> Tensor:
    for layer in module["encoder"]:
        x = torch.relu(layer(x))
    *inner, last = module["decoder"]
    for layer in inner:
        x = torch.relu(layer(x))
    return torch.sigmoid(last(x))


SUFFIXES = pytest.mark.parametrize("suffix", [".pt", ".safetensors"])


@SUFFIXES
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "module.", "net.auto_encoder."])
def test_layers_to_the_code_and_back_compute_what_they_did(
    suffix: str, tied: bool, bias: bool, prefix: str, tmp_path: Path
):
    module = mirrored(tied=tied, bias=bias)
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    brought = read(state, tmp_path, suffix)
    config = brought.checkpoint.config
    assert (config.widths, config.tied) == (WIDTHS, tied)
    x = torch.rand(4, 20)
    torch.testing.assert_close(brought.checkpoint.module()(x), computed(module, x))
    weights = [name for name in brought.checkpoint.state if "weight" in name]
    assert len(weights) == 2 * (2 - tied)
    words = "tied: " if tied else "built as the untied twin"
    assert any(words in note for note in brought.notes)
    assert any("zeros" in note for note in brought.notes) != bias


@pytest.mark.parametrize("way", five_ways.FIVE_WAYS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_state_dict_of_each_way_of_tying_is_understood(way: str, bias: bool, tmp_path: Path):
    torch.manual_seed(0)
    module = five_ways.FIVE_WAYS[way](bias=bias)
    brought = read(module.state_dict(), tmp_path)
    assert brought.checkpoint.config.tied
    x = torch.rand(4, 20)
    torch.testing.assert_close(brought.checkpoint.module()(x), module(x))


@SUFFIXES
@pytest.mark.parametrize("model", ["dense", "untied", "dense-gelu-linear"])
def test_our_own_names_with_any_prefix_come_back(suffix: str, model: str, tmp_path: Path):
    ours = make_checkpoint(*MODELS[model])
    given = {name: str(value) for name, value in MODELS[model][1].items() if value and name in (
        "activation", "code", "output")}  # fmt: skip
    state = {f"_orig_mod.{name}": tensor for name, tensor in ours.state.items()}
    brought = read(state, tmp_path, suffix, Asked(family="autoencoder", settings=given))
    assert brought.checkpoint.config.widths == ours.config.widths
    torch.testing.assert_close(
        brought.checkpoint.module()(ours.samples), ours.module()(ours.samples)
    )


def test_numbers_order_layers_as_numbers_in_a_file_that_keeps_no_order(tmp_path: Path):
    widths = tuple(range(30, 18, -1))
    module = mirrored(widths, tied=False)
    brought = read(module.state_dict(), tmp_path, ".safetensors")
    assert brought.checkpoint.config.widths == widths
    x = torch.rand(3, 30)
    torch.testing.assert_close(brought.checkpoint.module()(x), computed(module, x))


@SUFFIXES
def test_layers_whose_names_tell_no_side_are_split_in_the_middle(suffix: str, tmp_path: Path):
    module = mirrored(tied=True)
    layers = [*module["encoder"], *module["decoder"]]
    state = {
        f"fc{i}.{name}": tensor
        for i, layer in enumerate(layers, 9)
        for name, tensor in layer.state_dict().items()
    }
    assert read(state, tmp_path, suffix).checkpoint.config.tied


def test_a_weight_with_two_loose_biases_is_sorted_out_by_size(tmp_path: Path):
    state = {"w": torch.randn(7, 20), "b": torch.randn(7), "c": torch.randn(20)}
    brought = read(state, tmp_path)
    assert torch.equal(brought.checkpoint.state["layers.0.encoder_bias"], state["b"])
    assert torch.equal(brought.checkpoint.state["layers.0.decoder_bias"], state["c"])


def test_a_dict_inside_a_training_checkpoint_is_found(tmp_path: Path):
    content = {"epoch": 3, "state_dict": mirrored(tied=True).state_dict()}
    assert read(content, tmp_path).checkpoint.config.tied


def test_all_square_layers_are_paired_by_their_ties(tmp_path: Path):
    module = mirrored((8, 8, 8), tied=True)
    x = torch.rand(4, 8)
    ours = read(module.state_dict(), tmp_path).checkpoint.module()
    torch.testing.assert_close(ours(x), computed(module, x))


# What leaves more than one reading.


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (mirrored((8, 8, 8), tied=False).state_dict(), "fit in either order"),
        ({"w": torch.ones(7, 7), "b": torch.ones(7), "c": torch.ones(7)}, "bias of 2 layers"),
        ({"w": torch.ones(7, 9), "b": torch.ones(5)}, "bias of no layers"),
        ({"conv.weight": torch.ones(3, 1, 3, 3)}, "not of dense layers"),
        ({"b": torch.ones(3)}, "not of dense layers"),
        ({"enc.0.weight": torch.ones(7, 9), "enc.1.weight": torch.ones(5, 6)}, "does not follow"),
        (
            {"enc.weight": torch.ones(7, 9), "dec.weight": torch.ones(8, 7)},
            "do not mirror the encoder's",
        ),
        (
            {"enc.weight": torch.ones(7, 9), "mid.weight": torch.ones(7, 7),
             "dec.weight": torch.ones(9, 7)},
            "no name says whether mid",
        ),
    ],
)  # fmt: skip
def test_an_unclear_dict_is_refused_with_what_was_understood(state, match: str, tmp_path: Path):
    words = refused(state, tmp_path, match)
    assert "package.module:factory" in words
    assert "encoder.0.weight" in words


def test_a_square_decoder_weight_that_repeats_the_encoders_is_ambiguous(tmp_path: Path):
    weight = torch.randn(6, 6)
    words = refused(
        {"enc.weight": weight, "dec.weight": weight.clone()}, tmp_path, "as it is, or transposed"
    )
    assert "enc 6 → 6" in words


def test_a_dict_that_is_tied_in_part_is_refused(tmp_path: Path):
    module = mirrored(tied=True)
    with torch.no_grad():
        module["decoder"][0].weight[0, 0] += 1
    refused(module.state_dict(), tmp_path, "some decoder weights are the encoder's")


def test_names_without_an_order_in_a_file_without_one_are_refused(tmp_path: Path):
    state = {"hidden.weight": torch.ones(7, 9), "out.weight": torch.ones(9, 7)}
    refused(state, tmp_path, "have no order", ".safetensors")
    assert read(state, tmp_path).checkpoint.config.widths == (9, 7)


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    widths=st.lists(st.integers(2, 5), min_size=2, max_size=4).map(tuple),
    tied=st.booleans(),
    prefix=st.sampled_from(["", "a.", "model.enc_dec."]),
    suffix=st.sampled_from([".pt", ".safetensors"]),
)
def test_a_reading_computes_the_model_or_there_is_none(
    widths, tied, prefix, suffix, tmp_path: Path
):
    module = mirrored(widths, tied=tied)
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    try:
        ours = read(state, tmp_path, suffix).checkpoint.module()
    except CheckpointError:
        ours = None
    if ours is None:
        assert len(set(widths)) < len(widths), "different widths leave one reading"
        return
    x = torch.rand(4, widths[0])
    torch.testing.assert_close(ours(x), computed(module, x))
