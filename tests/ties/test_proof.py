"""Proofs of ties: they hold for every way of tying, and say why where they do not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import mistaken_ties
import pytest
import strangers
import torch
from conftest import MODELS, make_checkpoint
from five_ways import FIVE_WAYS, functional
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from tiedexport import ties
from tiedexport.errors import BadInputError, TieBrokenError, UsageError
from tiedexport.families import config_from, family_named
from tiedexport.ties.proof import SUM_TOLERANCE
from tiedexport.ties.slopes import GRADCHECK_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=FIVE_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_of_the_five_ways_is_proven(way: str) -> None:
    proofs = ties.check(FIVE_WAYS[way]())
    assert len(proofs) == 2
    for layer, proof in enumerate(proofs):
        assert proof.holds, proof.reason
        assert proof.names[0].startswith(f"layers.{layer}.")
        assert len(proof.paths) == 2
        assert all(path.norm > 0 for path in proof.paths)
        assert proof.sum_error <= SUM_TOLERANCE
        assert proof.gradcheck_error <= GRADCHECK_TOLERANCE
        assert proof.optimizer_entries == 1
        assert proof.moves_together


@settings(deadline=None, max_examples=12)
@example("linear_and_functional", [10, 18], True, 238)  # a ReLU switches within the first step
@example("parametrized", [9, 2, 4, 2], False, 94)  # a slope of 1e-6 of the output
@given(
    way=st.sampled_from(sorted(FIVE_WAYS)),
    widths=st.lists(st.integers(2, 24), min_size=2, max_size=4),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_widths_are_proven(way: str, widths: list[int], bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    module = FIVE_WAYS[way](tuple(widths), bias)
    proofs = ties.check(module)
    assert len(proofs) == len(widths) - 1
    assert all(proof.holds for proof in proofs), proofs


def test_each_share_is_what_autograd_gives_two_separate_weights() -> None:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 9))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(torch.tanh(x @ self.weight.t()) @ self.weight).square().sum()

    module, x = Loss(), torch.rand(3, 9)
    (proof,) = ties.check(module, x)
    one, other = (module.weight.detach().double().requires_grad_() for _ in range(2))
    torch.sigmoid(torch.tanh(x.double() @ one.t()) @ other).square().sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    shares = [path.norm for path in proof.paths]
    assert shares[0] / shares[1] == pytest.approx(float(one.grad.norm() / other.grad.norm()), 1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_families_of_this_project_are_proven(name: str) -> None:
    family, fields = MODELS[name]
    checkpoint = make_checkpoint(family, fields)
    module = family_named(family).module(config_from(family_named(family), fields))
    module.load_state_dict(checkpoint.state)
    proofs = ties.check(module)
    assert {proof.names[0] for proof in proofs} == {tie.weight for tie in module.ties}
    assert all(proof.holds for proof in proofs)
    assert all(not finding.breaks_now for finding in ties.findings(module))


BROKEN = {
    mistaken_ties.ParameterOfTranspose: "two Parameters in one memory",
    mistaken_ties.DataAssignment: "two Parameters in one memory",
    mistaken_ties.ClonedOnce: "two Parameters of equal values",
    mistaken_ties.OneSideFrozen: "two Parameters in one memory",
    mistaken_ties.FrozenClone: "two Parameters of equal values",
    mistaken_ties.DetachedBuffer: "a Parameter and a buffer in one memory",
    mistaken_ties.DetachedAttribute: "a Parameter and a plain attribute in one memory",
    mistaken_ties.DetachedInForward: "no gradient flows back through linear(…, encoder.weight.d",
    mistaken_ties.DataInForward: "no gradient flows back through linear(…, encoder.weight.data",
    mistaken_ties.NoGradInForward: "no gradient flows back",
    mistaken_ties.ThroughNumpy: "not the slope of the output",
    mistaken_ties.CachedTranspose: "something is cached",
}


@pytest.mark.parametrize("mistake", BROKEN, ids=lambda mistake: mistake.__name__)
def test_each_mistake_fails_for_its_own_reason(mistake: type[nn.Module]) -> None:
    (proof,) = ties.check(mistake())
    assert not proof.holds
    assert BROKEN[mistake] in proof.reason


@pytest.mark.parametrize(
    "hook",
    [
        lambda weight: weight.register_hook(lambda gradient: 0 * gradient),
        lambda weight: weight.register_post_accumulate_grad_hook(lambda w: w.grad.zero_()),
    ],
    ids=["register_hook", "register_post_accumulate_grad_hook"],
)
def test_a_hook_on_the_gradient_leaves_a_tie_unproven(hook: Callable[..., Any]) -> None:
    module = functional((12, 5))
    handle = hook(module.layers[0].weight)
    (proof,) = ties.check(module)
    assert "a hook changes the gradient of layers.0.weight" in proof.reason
    assert [one.kind for one in ties.findings(module)] == ["a hook on the gradient"]
    handle.remove()
    ties.assert_tied(module)
    assert ties.findings(module) == ()


def test_two_parameters_share_a_gradient_that_is_not_the_sum() -> None:
    (proof,) = ties.check(mistaken_ties.DataAssignment())
    assert proof.optimizer_entries == 2
    assert proof.sum_error > 0.01
    (proof,) = ties.check(mistaken_ties.ClonedOnce())
    assert not proof.moves_together


def test_assert_tied_takes_names() -> None:
    module = FIVE_WAYS["shared_parameter"]()
    ties.assert_tied(module, "layers.0.encoder.weight", "layers.0.decoder.weight")
    with pytest.raises(TieBrokenError, match="not tied"):
        ties.assert_tied(module, "layers.0.encoder.weight", "layers.1.decoder.weight")
    with pytest.raises(TieBrokenError, match="not tied"):
        ties.assert_tied(module, "layers.0.encoder.bias")
    with pytest.raises(UsageError, match="no such parameter"):
        ties.assert_tied(module, "layers.0.weight")
    with pytest.raises(TieBrokenError, match="something is cached"):
        ties.assert_tied(mistaken_ties.CachedTranspose())
    with pytest.raises(TieBrokenError, match="nothing is tied"):
        ties.assert_tied(mistaken_ties.TwoLinears())


def test_a_tie_that_training_parted_is_missed_by_name() -> None:
    module = copy.deepcopy(mistaken_ties.DataAssignment())
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(torch.rand(3, 12)).square().sum().backward()
    optimizer.step()
    assert ties.check(module) == ()  # nothing tells that these two were one
    with pytest.raises(TieBrokenError):
        ties.assert_tied(module, "encoder.weight", "decoder.weight")


@pytest.mark.parametrize(
    "inputs",
    [None, (20,), torch.rand(2, 20), torch.rand(5, 20).half(), (torch.rand(1, 20),)],
    ids=["input_shape", "shape", "tensor", "half", "arguments"],
)
def test_inputs_may_be_a_shape_a_tensor_or_arguments(inputs: object) -> None:
    assert all(proof.holds for proof in ties.check(functional((20, 5)), inputs))


def test_a_shape_is_one_of_tokens_where_an_embedding_takes_them() -> None:
    (proof,) = ties.check(strangers.LanguageModel(), (4,))
    assert proof.holds, proof
    assert proof.names == ("embedding.weight", "head.weight")


@pytest.mark.parametrize("inputs", [None, (), (0,), (-3,), "784", {}, 3.0], ids=repr)
def test_what_is_no_input_is_refused(inputs: object) -> None:
    with pytest.raises(UsageError):
        ties.check(nn.Linear(3, 3), inputs)


@pytest.mark.parametrize("prove", [ties.check, ties.assert_tied, ties.findings])
def test_what_is_no_module_is_refused(prove: Callable[..., Any]) -> None:
    with pytest.raises(BadInputError, match="not a module"):
        prove("package.module:factory")


def test_what_the_module_cannot_take_is_its_own_error() -> None:
    with pytest.raises(BadInputError, match=r"forward pass failed[\s\S]*\(8, 7\)"):
        ties.check(functional(), (7,))
