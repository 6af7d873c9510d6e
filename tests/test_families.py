"""The contract of every family: shapes, one Parameter a tie, and a tie that nothing separates."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from conftest import MODELS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tiedexport.errors import RecipeError, UsageError
from tiedexport.families import TiedStack, config_from, family_named, trained_families

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST: dict[str, dict[str, Any]] = {
    "autoencoder": {"widths": [5, 4, 3]},
    "conv": {"image": [5, 4], "channels": [2, 3]},
}
"""Family → its smallest interesting configuration; a new family adds its own."""


def model(family: str, **fields: Any) -> TiedStack:
    torch.manual_seed(0)
    chosen = family_named(family)
    return chosen.module(config_from(chosen, SMALLEST[family] | fields))


def perturbed_biases(module: TiedStack) -> TiedStack:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return module


@pytest.fixture(params=sorted(trained_families()))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_family_has_a_configuration_here_and_a_model_in_the_suites():
    assert set(SMALLEST) == set(trained_families())
    assert {family for family, _ in MODELS.values()} == set(trained_families())


# Shapes and formulas.


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_decoding_restores_the_shape_that_was_encoded(family: str, batch: int):
    module = model(family)
    x = torch.rand(batch, *module.input_shape)
    code = module.encode(x)
    assert len(code) == batch
    assert module.decode(code).shape == x.shape
    torch.testing.assert_close(module(x), module.decode(code), rtol=0, atol=0)


def test_a_dense_stack_computes_its_formula():
    module = perturbed_biases(model("autoencoder", activation="tanh")).double()
    x = torch.rand(6, 5, dtype=torch.float64)
    w1, w2 = (layer.weight for layer in module.layers)
    b1, b2 = (layer.encoder_bias for layer in module.layers)
    c1, c2 = (layer.decoder_bias for layer in module.layers)
    code = torch.tanh(torch.tanh(x @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(module.encode(x), code)
    restored = torch.sigmoid(torch.tanh(code @ w2 + c2) @ w1 + c1)
    torch.testing.assert_close(module.decode(code), restored)


def test_each_decoder_layer_is_the_adjoint_of_its_encoder_layer(family: str):
    module = model(family).double()
    sample = torch.rand(3, *module.input_shape, dtype=torch.float64)
    for layer in module.layers:
        encoded = layer.encode(sample)
        z = torch.rand_like(encoded)
        inner = (encoded * z).sum(), (sample * layer.decode(z)).sum()
        torch.testing.assert_close(*inner)
        sample = encoded


@pytest.mark.parametrize(
    ("fields", "changed"),
    [({"code": "linear"}, "encode"), ({"output": "linear"}, "decode")],
)
def test_a_linear_end_leaves_out_one_function(family: str, fields: dict[str, str], changed: str):
    ordinary, linear = model(family, activation="tanh"), model(family, activation="tanh", **fields)
    function = torch.tanh if changed == "encode" else torch.sigmoid
    shape = ordinary.input_shape
    x = torch.rand(2, *shape)
    x = x if changed == "encode" else ordinary.encode(x)
    assert not torch.equal(getattr(linear, changed)(x), getattr(ordinary, changed)(x))
    torch.testing.assert_close(function(getattr(linear, changed)(x)), getattr(ordinary, changed)(x))


@pytest.mark.parametrize("init", ["he", "orthogonal"])
def test_initial_weights_have_the_law_they_are_named_after(init: str):
    torch.manual_seed(1)
    dense = family_named("autoencoder")
    module = dense.module(config_from(dense, {"widths": [300, 200], "init": init}))
    weight = module.layers[0].weight.detach()
    if init == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, torch.eye(200), atol=1e-5, rtol=0)
    else:
        # 60,000 draws: five standard errors of a variance are 5 √(2/60000) = 2.9 %.
        assert weight.var().item() == pytest.approx(2 / 300, rel=0.029)
    assert not module.layers[0].encoder_bias.any()
    assert not module.layers[0].decoder_bias.any()


# Ties.


def test_a_tied_weight_is_one_parameter_with_two_uses(family: str):
    module = model(family)
    assert len(module.ties) == len(module.layers)
    names = dict(module.named_parameters())
    for tie, layer in zip(module.ties, module.layers, strict=True):
        assert names[tie.weight] is layer.weight
        assert layer.weight_of_decoder is layer.weight
        assert len(tie.uses) == 2
    assert set(module.state_dict()) == set(names)


def test_the_untied_twin_has_no_ties_and_one_more_weight_a_layer(family: str):
    tied, twin = model(family), model(family, tied=False)

    def count(module: TiedStack) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert twin.ties == ()
    assert count(twin) == count(tied) + sum(layer.weight.numel() for layer in tied.layers)
    for layer in twin.layers:
        assert not torch.equal(layer.weight, layer.weight_of_decoder)


def test_the_gradient_of_a_tied_weight_is_the_sum_over_both_paths(family: str):
    tied = perturbed_biases(model(family, activation="tanh")).double()
    twin = model(family, activation="tanh", tied=False).double()
    state = tied.state_dict()
    for i in range(len(tied.layers)):
        state[f"layers.{i}.decoder_weight"] = state[f"layers.{i}.weight"].clone()
    twin.load_state_dict(state)
    x = torch.rand(4, *tied.input_shape, dtype=torch.float64)
    for module in (tied, twin):
        functional.mse_loss(module(x), x).backward()
    for one, two in zip(tied.layers, twin.layers, strict=True):
        assert two.weight.grad.abs().max() > 0
        assert two.decoder_weight.grad.abs().max() > 0
        torch.testing.assert_close(one.weight.grad, two.weight.grad + two.decoder_weight.grad)


def test_gradients_agree_with_finite_differences(family: str):
    module = perturbed_biases(model(family, activation="tanh")).double()
    names, values = zip(*module.named_parameters(), strict=True)
    x = torch.rand(2, *module.input_shape, dtype=torch.float64)

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(loss, [v.detach().requires_grad_() for v in values])


def _halved(module: TiedStack) -> TiedStack:
    return module.half()


def _assigned(module: TiedStack) -> TiedStack:
    fresh = copy.deepcopy(module)
    fresh.load_state_dict({k: v + 1 for k, v in module.state_dict().items()}, assign=True)
    return fresh


def _emptied(module: TiedStack) -> TiedStack:
    state = module.state_dict()
    fresh = copy.deepcopy(module).to("meta").to_empty(device="cpu")
    fresh.load_state_dict(state)
    return fresh


def _stepped(module: TiedStack) -> TiedStack:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    module(torch.rand(3, *module.input_shape)).sum().backward()
    optimizer.step()
    return module


@pytest.mark.parametrize("change", [copy.deepcopy, _halved, _assigned, _emptied, _stepped])
def test_the_tie_survives(family: str, change: Callable[[TiedStack], TiedStack]):
    module = change(model(family)).double()
    assert len(module.ties) == len(module.layers)
    layer = module.layers[0]
    assert layer.weight_of_decoder is layer.weight
    x = torch.rand(2, *module.input_shape, dtype=torch.float64)
    code = layer.encode(x)
    before = code - layer.encoder_bias.view(-1, *[1] * (x.ndim - 2)), layer.decode(code)
    with torch.no_grad():
        layer.weight *= 2
        layer.decoder_bias.zero_()
    after = layer.encode(x) - layer.encoder_bias.view(-1, *[1] * (x.ndim - 2)), layer.decode(code)
    torch.testing.assert_close(after[0], 2 * before[0])
    assert not torch.equal(after[1], before[1])


def test_an_optimizer_step_moves_both_uses_alike(family: str):
    module = model(family)
    before = module.layers[0].weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x = torch.rand(3, *module.input_shape)
    functional.mse_loss(module(x), x).backward()
    gradient = module.layers[0].weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(module.layers[0].weight_of_decoder, before - 0.5 * gradient)
    assert not torch.equal(module.layers[0].weight, before)


# Convolutions of any geometry.


@settings(max_examples=60, deadline=None)
@given(
    image=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
    channels=st.lists(st.integers(1, 3), min_size=2, max_size=4),
)
def test_a_convolution_restores_any_image_size_or_says_that_it_cannot(
    image, kernel, stride, padding, channels
):
    assume(padding < kernel)
    fields = {"image": image, "kernel": kernel, "stride": stride, "padding": padding}
    size = min(image)
    for _ in channels[1:]:
        if size + 2 * padding < kernel:
            with pytest.raises(RecipeError, match="smaller than the kernel"):
                model("conv", channels=channels, **fields)
            return
        size = (size + 2 * padding - kernel) // stride + 1
    module = model("conv", channels=channels, **fields)
    x = torch.rand(2, channels[0], *image)
    assert module(x).shape == x.shape


# Errors.


@pytest.mark.parametrize(
    ("family", "fields", "where"),
    [
        ("autoencoder", {"widths": []}, "model.widths"),
        ("autoencoder", {"widths": [3]}, "model.widths"),
        ("autoencoder", {"widths": [3, 0]}, "model.widths"),
        ("conv", {"channels": [1]}, "model.channels"),
        ("conv", {"channels": [1, 0]}, "model.channels"),
        ("conv", {"image": [0, 4]}, "model.image"),
        ("conv", {"kernel": 0}, "model.kernel"),
        ("conv", {"stride": 0}, "model.stride"),
        ("conv", {"padding": -1}, "model.padding"),
        ("conv", {"kernel": 2, "padding": 2}, "model.padding"),
        ("conv", {"kernel": 9, "padding": 0}, "layer 0"),
    ],
)
def test_an_impossible_model_is_a_recipe_error_that_names_the_field(family, fields, where):
    with pytest.raises(RecipeError) as caught:
        model(family, **fields)
    assert where in str(caught.value.where)
    assert caught.value.got is not None
    assert caught.value.expected is not None


@pytest.mark.parametrize(
    "fields", [{"widths": "wide"}, {"depth": 3}, {"activation": "swish"}, {"widths": [2.5, 1]}]
)
def test_a_field_that_is_unknown_or_of_the_wrong_type_is_refused(fields):
    with pytest.raises(msgspec.ValidationError):
        model("autoencoder", **fields)


def test_an_unknown_family_is_an_error_of_usage_that_lists_the_known_ones():
    with pytest.raises(UsageError, match="unknown family") as caught:
        family_named("transformer", trained=True)
    assert caught.value.expected == ", ".join(sorted(trained_families()))
