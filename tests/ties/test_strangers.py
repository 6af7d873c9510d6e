"""Modules of every kind: proven, or refused with a clear error, and never changed."""

from __future__ import annotations

from typing import Any

import mistaken_ties
import pytest
import strangers
import torch
from five_ways import FIVE_WAYS
from torch import Tensor, nn

from tiedexport import ties
from tiedexport.errors import BadInputError
from tiedexport.results.ties import TieProof
from tiedexport.ties.weights import weights_of

F = nn.functional

PROVEN = [
    strangers.Tied,
    strangers.Convolutions,
    strangers.FunctionalConvolution,
    strangers.CustomFunction,
    strangers.Checkpointed,
    strangers.Reentrant,
    strangers.Stateful,
    strangers.Mixed,
    strangers.WeightNormed,
    strangers.Repeated,
    strangers.Attention,
    strangers.Returned,
    strangers.Recorded,
]


def _bitwise(module: nn.Module) -> list[Any]:
    tensors = [*module.parameters(), *module.buffers()]
    return [(id(t), t._version, t.grad, t.requires_grad, t.detach().clone()) for t in tensors]


def _same(before: list[Any], after: list[Any]) -> bool:
    return all(
        a[:2] == b[:2] and a[2] is b[2] and a[3] == b[3] and torch.equal(a[4], b[4])
        for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("make", PROVEN, ids=lambda make: make.__name__)
def test_it_is_proven_without_findings_and_without_a_trace(make: type[nn.Module]) -> None:
    leaves_no_trace(make())


def test_a_module_that_is_evaluated_is_proven_as_it_runs_then() -> None:
    leaves_no_trace(strangers.Convolutions().eval())


def leaves_no_trace(module: nn.Module) -> None:
    """Assert that a module is proven, has no findings, and is what it was."""
    before, rng = _bitwise(module), torch.get_rng_state()
    state = {path: dict(vars(one)) for path, one in module.named_modules()}
    proofs = ties.check(module)
    findings = ties.findings(module)
    assert proofs
    assert all(proof.holds for proof in proofs), proofs
    assert not [finding for finding in findings if finding.breaks_now], findings
    assert _same(before, _bitwise(module))
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert state == {path: dict(vars(one)) for path, one in module.named_modules()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_every_type_is_proven_in_float64(dtype: torch.dtype) -> None:
    assert [proof.holds for proof in ties.check(strangers.Tied().to(dtype))] == [True]


def test_equal_weights_of_eight_bits_are_one_weight() -> None:
    module = mistaken_ties.ClonedOnce().requires_grad_(False).to(torch.float8_e4m3fn)
    (weight,) = (one for one in weights_of(module) if len(one.members) > 1)
    assert weight.names == ("encoder.weight", "decoder.weight")


def test_a_language_model_and_what_became_of_its_tie() -> None:
    tokens = torch.randint(0, 50, (2, 7))
    module = strangers.LanguageModel()
    ties.assert_tied(module, "embedding.weight", "head.weight", inputs=tokens)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    (finding,) = [one for one in ties.findings(module, tokens) if one.breaks_now]
    assert finding.kind == "two Parameters of equal values"
    assert finding.instead == "self.head.weight = self.embedding.weight"


def test_layers_that_were_cloned_on_purpose_are_no_lost_tie() -> None:
    tokens = torch.randint(0, 50, (2, 7))
    assert ties.check(strangers.LanguageModel(tie=False), tokens) == ()
    assert ties.findings(strangers.LanguageModel(tie=False), tokens) == ()


def test_a_frozen_model_is_tied_no_less() -> None:
    (proof,) = ties.check(strangers.Tied().requires_grad_(False))
    assert proof.holds


def test_slices_of_a_fused_weight_are_no_tie() -> None:
    class Fused(nn.Module):
        input_shape = (6,)

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight[:3].t()) @ self.weight[3:]

    assert ties.check(Fused()) == ()


def test_constants_that_are_equal_by_chance_are_no_tie() -> None:
    module = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.LayerNorm(32))
    assert ties.check(module, (32,)) == ()
    assert ties.findings(module, (32,)) == ()


def test_a_wrong_backward_is_not_proven() -> None:
    (proof,) = ties.check(strangers.WrongGradient())
    assert "not the slope of the output" in proof.reason


def test_a_parameter_in_a_plain_list_is_named() -> None:
    class Listed(strangers.Tied):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [self.weight]
            del self.weight

        def forward(self, x: Tensor) -> Tensor:
            (weight,) = self.weights
            return F.linear(torch.tanh(F.linear(x, weight)), weight.t())

    (proof,) = ties.check(Listed())
    assert proof.optimizer_entries == 0
    assert not proof.moves_together
    assert "no optimizer sees weights[0]" in proof.reason
    (finding,) = ties.findings(Listed())
    assert finding.instead == "self.weights = torch.nn.ParameterList(self.weights)"


def test_a_dead_layer_is_no_cut_path() -> None:
    class Dead(strangers.Tied):
        def forward(self, x: Tensor) -> Tensor:
            alive = super().forward(x)
            return alive + torch.relu(F.linear(x, self.weight) - 1e9).sum()

    assert [proof.holds for proof in ties.check(Dead())] == [True]


def test_what_the_output_does_not_depend_on_is_tied_by_identity() -> None:
    class Invariant(nn.Module):
        """Softmax cancels a bias of its keys: the gradient is rounding, and no slope."""

        input_shape = (6,)

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = torch.softmax(x @ (x + self.bias).t(), -1) @ x
            return x

    assert [proof.holds for proof in ties.check(Invariant())] == [True]


def test_a_parameter_of_two_modules_that_is_used_once_is_no_tie() -> None:
    class Registered(mistaken_ties.TwoLinears):
        def __init__(self) -> None:
            super().__init__()
            self.bias = self.decoder.bias

    assert ties.check(Registered()) == ()


def test_a_name_for_a_layer_used_once_is_no_tie() -> None:
    class Alias(mistaken_ties.TwoLinears):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.ModuleList([self.encoder, self.decoder])

    assert ties.check(Alias()) == ()


REFUSED = {
    "raises": (strangers.Raises, "KeyError"),
    "returns nothing": (strangers.Nothing, "no floating tensor"),
    "no forward": (nn.Module, "forward pass failed"),
    "cannot be copied": (strangers.Locked, "cannot be copied"),
    "meta": (lambda: nn.Linear(3, 3, device="meta"), "device meta"),
    "lazy": (lambda: nn.LazyLinear(3), "lazy"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("function", [ties.check, ties.findings])
def test_a_module_that_cannot_be_run_is_a_clear_error(what: str, function: Any) -> None:
    make, words = REFUSED[what]
    with pytest.raises(BadInputError, match=words):
        function(make(), (12,))


def test_a_module_inside_itself_is_entered_once() -> None:
    assert [proof.names for proof in ties.check(strangers.Cyclic())] == [("weight",)]


def test_a_compiled_module_is_run_as_it_is_written() -> None:
    compiled = torch.compile(strangers.Tied(), backend="eager")
    proofs: tuple[TieProof, ...] = ties.check(compiled, (12,))
    assert [proof.names for proof in proofs] == [("_orig_mod.weight",)]
    assert proofs[0].holds


def test_findings_need_no_inputs() -> None:
    module = FIVE_WAYS["shared_parameter"]()
    del module.input_shape
    kinds = {finding.kind for finding in ties.findings(module)}
    assert "lost by load_state_dict(assign=True)" in kinds
