"""The family of foreign models: a chain of layers on named Parameters, from any configuration."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from conftest import MODELS, make_checkpoint

from tiedexport.errors import RecipeError, UsageError
from tiedexport.families import config_from, family_named

LAYERS: list[dict[str, Any]] = [
    {"op": "dense", "weight": "net.0.weight", "bias": "net.0.bias"},
    {"op": "tanh"},
    {"op": "reshape", "shape": [2, 2]},
    {"op": "reshape", "shape": [4]},
    {"op": "dense", "weight": "net.0.weight", "transposed": True},
    {"op": "sigmoid"},
]
SOUND: dict[str, Any] = {
    "layers": LAYERS,
    "encoder_layers": 3,
    "shapes": {"net.0.weight": [4, 6], "net.0.bias": [4]},
    "input_shape": [6],
}


def module_from(**changes: Any) -> Any:
    family = family_named("module")
    return family.module(config_from(family, SOUND | changes))


def test_it_computes_its_layers_and_ties_what_two_of_them_use():
    module = module_from()
    assert list(module.state_dict()) == ["net.0.weight", "net.0.bias"]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    weight, bias = module.state_dict().values()
    x = torch.randn(3, 6)
    code = torch.tanh(x @ weight.t() + bias)
    torch.testing.assert_close(module.encode(x), code.reshape(3, 2, 2))
    torch.testing.assert_close(module(x), torch.sigmoid(code @ weight))
    (tie,) = module.ties
    assert tie.weight == "net.0.weight"
    assert tie.uses == ("encoder layer 0", "decoder layer 0 (transposed)")


def test_the_element_wise_ends_are_apart_from_what_runs_in_half_precision():
    module = module_from(encoder_layers=2)
    x = torch.randn(3, 6)
    logits = module.encode_to_logits(x)
    torch.testing.assert_close(module.activate_code(logits), torch.tanh(logits))
    logits = module.decode_to_logits(torch.randn(3, 4))
    torch.testing.assert_close(module.activate_output(logits), torch.sigmoid(logits))


@pytest.mark.parametrize("name", MODELS)
def test_a_family_of_ours_written_as_a_chain_computes_the_same(name: str, bundles):
    manifest = bundles[name].manifest
    ours = make_checkpoint(*MODELS[name])
    encoder, decoder = manifest.stage("encoder"), manifest.stage("decoder")
    family = family_named("module")
    fields = {
        "layers": msgspec.to_builtins((*encoder.layers, *decoder.layers)),
        "encoder_layers": len(encoder.layers),
        "shapes": {key: list(tensor.shape) for key, tensor in ours.state.items()},
        "input_shape": list(encoder.inputs[0].element_shape),
    }
    chain = family.module(config_from(family, fields))
    chain.load_state_dict(ours.state)
    torch.testing.assert_close(chain.encode(ours.samples), ours.module().encode(ours.samples))
    torch.testing.assert_close(chain(ours.samples), ours.module()(ours.samples))
    assert {tie.weight for tie in chain.ties} == {tie.weight for tie in manifest.ties}


@pytest.mark.parametrize(
    "changes",
    [
        {"shapes": {"net.0.weight": [4, 6]}},
        {"shapes": SOUND["shapes"] | {"other": [3]}},
        {"layers": [*LAYERS, {"op": "dense"}]},
        {"shapes": {"net.0.weight": [-4, 6], "net.0.bias": [4]}},
        {"layers": [{"op": "dense", "weight": "encode"}], "shapes": {"encode": [4, 6]}},
        {"layers": [{"op": "dense", "weight": "encode.w"}], "shapes": {"encode.w": [4, 6]}},
        {"layers": [{"op": "dense", "weight": "a..w"}], "shapes": {"a..w": [4, 6]}},
        {"layers": [{"op": "dense", "weight": "a."}], "shapes": {"a.": [4, 6]}},
    ],
)
def test_a_configuration_that_no_module_has_is_refused(changes: dict[str, Any]):
    with pytest.raises(RecipeError):
        module_from(**changes)


def test_no_recipe_describes_it():
    with pytest.raises(UsageError, match="unknown family"):
        family_named("module", trained=True)
