"""Each mistake is named, with its line, and the line to write instead does mend it."""

from __future__ import annotations

import types
from functools import cache
from typing import Any

import mistaken_ties
import pytest
import torch
from five_ways import FIVE_WAYS
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tiedexport import ties
from tiedexport.results.ties import Finding

F = nn.functional

KINDS = {
    mistaken_ties.ParameterOfTranspose: "nn.Parameter of a transpose",
    mistaken_ties.DataAssignment: "assignment through .data",
    mistaken_ties.ClonedOnce: "two Parameters of equal values",
    mistaken_ties.OneSideFrozen: "requires_grad=False on one side",
    mistaken_ties.FrozenClone: "requires_grad=False on one side",
    mistaken_ties.DetachedBuffer: "detached copy",
    mistaken_ties.DetachedAttribute: "detached copy",
    mistaken_ties.ViewTakenOnce: "a view taken once",
    mistaken_ties.DetachedInForward: ".detach() in the forward pass",
    mistaken_ties.DataInForward: ".detach() in the forward pass",
    mistaken_ties.NoGradInForward: "a use under no_grad",
    mistaken_ties.ThroughNumpy: "a use that torch does not see",
    mistaken_ties.DeadOriginal: "dead original under parametrize",
    mistaken_ties.DeadWeight: "dead weight",
    mistaken_ties.CachedTranspose: "kept from the first forward pass",
}
LINES = {
    mistaken_ties.ParameterOfTranspose: "self.decoder.weight = nn.Parameter(",
    mistaken_ties.DataAssignment: "self.decoder.weight.data = ",
    mistaken_ties.OneSideFrozen: "self.decoder.weight = nn.Parameter(",
    mistaken_ties.DetachedBuffer: 'self.register_buffer("decoder_weight"',
    mistaken_ties.DetachedAttribute: "self.decoder_weight = ",
    mistaken_ties.DetachedInForward: "self.encoder.weight.detach()",
    mistaken_ties.DataInForward: "self.encoder.weight.data",
    mistaken_ties.NoGradInForward: "weight = self.encoder.weight.t()",
    mistaken_ties.ThroughNumpy: "self.encoder.weight.detach().numpy()",
    mistaken_ties.CachedTranspose: "self.cached, self.decoder_bias",
}


@cache
def found(mistake: type[nn.Module]) -> Finding:
    """The one finding of what is broken now in a mistake, looked for once."""
    return only(mistake())


def only(module: nn.Module, **arguments: Any) -> Finding:
    """The one finding of what is broken now."""
    (finding,) = [one for one in ties.findings(module, **arguments) if one.breaks_now]
    return finding


@pytest.mark.parametrize("mistake", KINDS, ids=lambda mistake: mistake.__name__)
def test_each_mistake_is_named(mistake: type[nn.Module]) -> None:
    finding = found(mistake)
    assert finding.kind == KINDS[mistake]
    assert "weight" in finding.where
    assert finding.consequence
    assert finding.instead


@pytest.mark.parametrize("mistake", LINES, ids=lambda mistake: mistake.__name__)
def test_the_line_of_the_mistake_is_named(mistake: type[nn.Module]) -> None:
    _, _, number = found(mistake).where.rpartition("mistaken_ties.py:")
    with open(mistaken_ties.__file__) as source:
        assert LINES[mistake] in source.read().splitlines()[int(number) - 1]


def test_sources_that_were_searched_already_change_nothing() -> None:
    mistake = mistaken_ties.DataAssignment
    assert only(mistake(), sources=[mistaken_ties, mistake]) == found(mistake)


def by_parameter() -> nn.Module:
    module = mistaken_ties.TwoLinears()
    module.decoder.weight = nn.Parameter(module.encoder.weight.t())
    return module


def by_data() -> nn.Module:
    module = mistaken_ties.TwoLinears()
    module.decoder.weight.data = module.encoder.weight.data.t()
    return module


def test_a_factory_is_searched_where_the_class_does_not_tell() -> None:
    assert only(by_data()).kind == "two Parameters in one memory"
    assert only(by_data(), sources=[by_data]).kind == "assignment through .data"
    assert only(by_parameter(), sources=[by_parameter]).kind == "nn.Parameter of a transpose"


def test_the_line_of_another_class_is_not_taken_for_it() -> None:
    assert ".py" not in found(mistaken_ties.ViewTakenOnce).where
    assert ".py" not in only(mistaken_ties.ViewTakenOnce(), sources=[mistaken_ties]).where


def test_a_class_without_source_is_told_by_its_state_alone() -> None:
    names: dict[str, Any] = {"nn": nn, "torch": torch}
    code = "class Made(nn.Sequential):\n    input_shape = (12,)\n"
    exec(code, names)
    module = names["Made"](nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 12))
    module[2].weight.data = module[0].weight.data.t()
    finding = only(module)
    assert finding.kind == "two Parameters in one memory"
    assert finding.instead == "torch.nn.functional.linear(z, self[0].weight.t(), self[2].bias)"


TRANSPOSED = [
    mistaken_ties.ParameterOfTranspose,
    mistaken_ties.DataAssignment,
    mistaken_ties.ClonedOnce,
    mistaken_ties.OneSideFrozen,
    mistaken_ties.FrozenClone,
]


@pytest.mark.parametrize("mistake", TRANSPOSED, ids=lambda mistake: mistake.__name__)
def test_the_functional_line_mends_a_second_parameter(mistake: type[nn.Module]) -> None:
    instead = found(mistake).instead

    class Mended(mistake):
        def forward(self, x: Tensor) -> Any:
            z = torch.tanh(self.encoder(x))
            return eval(instead, {"torch": torch}, {"self": self, "z": z})

    module, x = Mended(), torch.rand(3, 12)
    torch.testing.assert_close(module(x), mistake.forward(module, x))
    module.decoder.weight = None  # what findings(module) says next of the weight that is left
    assert [proof.holds for proof in ties.check(module)] == [True]
    assert not [finding for finding in ties.findings(module) if finding.breaks_now]


@pytest.mark.parametrize(
    "mistake",
    [
        mistaken_ties.DetachedBuffer,
        mistaken_ties.DetachedAttribute,
        mistaken_ties.ViewTakenOnce,
    ],
    ids=lambda mistake: mistake.__name__,
)
def test_reading_the_weight_at_every_call_mends_a_stored_one(mistake: type[nn.Module]) -> None:
    instead = found(mistake).instead

    class Mended(mistaken_ties._FunctionalDecoder):
        def forward(self, x: Tensor) -> Tensor:
            weight = eval(instead, {}, {"self": self})
            return F.linear(torch.tanh(self.encoder(x)), weight, self.decoder_bias)

    ties.assert_tied(Mended(), "encoder.weight")


@pytest.mark.parametrize(
    "mistake",
    [mistaken_ties.DetachedInForward, mistaken_ties.DataInForward],
    ids=lambda mistake: mistake.__name__,
)
def test_the_line_without_its_cut_mends_the_forward_pass(mistake: type[nn.Module]) -> None:
    instead = found(mistake).instead
    names: dict[str, Any] = {"F": F, "torch": torch}
    exec(f"def forward(self, x):\n    z = torch.tanh(self.encoder(x))\n    {instead}", names)
    module = mistake()
    module.forward = types.MethodType(names["forward"], module)
    ties.assert_tied(module, "encoder.weight")


def test_right_inverse_leaves_no_dead_original() -> None:
    instead = found(mistaken_ties.DeadOriginal).instead
    names: dict[str, Any] = {"nn": nn}
    exec(
        "class TransposeOf(nn.Module):\n"
        "    def __init__(self, layer):\n"
        "        super().__init__()\n"
        "        self.layer = (layer,)\n"
        "    def forward(self):\n"
        "        return self.layer[0].weight.t()\n"
        f"    {instead}",
        names,
    )
    module = mistaken_ties.TwoLinears()
    parametrize.register_parametrization(
        module.decoder, "weight", names["TransposeOf"](module.encoder)
    )
    ties.assert_tied(module)
    assert ties.findings(module) == ()
    assert sorted(module.state_dict()) == ["decoder.bias", "encoder.bias", "encoder.weight"]


def test_a_dead_weight_is_dropped_by_the_line() -> None:
    module = mistaken_ties.DeadWeight()
    exec(found(mistaken_ties.DeadWeight).instead, {}, {"self": module})
    assert "decoder.weight" not in module.state_dict()
    assert [proof.holds for proof in ties.check(module)] == [True]


LOST = {
    "functional": set(),
    "shared_parameter": {
        "lost by load_state_dict(assign=True)",
        'lost by .to("meta").to_empty()',
        "lost by quantize_dynamic",
    },
    "mirror_linear": {"lost by quantize_dynamic"},
    "linear_and_functional": {"lost by quantize_dynamic"},
    "parametrized": set(),
}


@pytest.mark.parametrize("way", FIVE_WAYS)
def test_each_way_is_told_which_calls_would_lose_it(way: str) -> None:
    findings = ties.findings(FIVE_WAYS[way]((12, 5)))
    assert {finding.kind for finding in findings} == LOST[way]
    assert not any(finding.breaks_now for finding in findings)


def reassign(module: nn.Module) -> nn.Module:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module


def through_meta(module: nn.Module) -> nn.Module:
    state = module.state_dict()
    module.to("meta").to_empty(device="cpu").load_state_dict(state)
    return module


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("lost by load_state_dict(assign=True)", reassign),
        ('lost by .to("meta").to_empty()', through_meta),
    ],
)
def test_the_lines_for_afterwards_tie_again(kind: str, call: Any) -> None:
    module = FIVE_WAYS["shared_parameter"]()
    (finding,) = [one for one in ties.findings(module) if one.kind == kind]
    module = call(module)
    assert not any(proof.holds for proof in ties.check(module))
    exec(finding.instead, {}, {"self": module})
    assert [proof.holds for proof in ties.check(module)] == [True, True]


def test_a_function_that_remembers_the_old_module_is_found_by_copying() -> None:
    (finding,) = ties.findings(mistaken_ties.Closure())
    assert finding.kind == "lost by copy.deepcopy"
    assert not finding.breaks_now


def test_calls_that_part_a_mistake_are_listed_with_it() -> None:
    consequence = found(mistaken_ties.DataAssignment).consequence
    for call in ("copy.deepcopy", ".to(dtype)", "load_state_dict(assign=True)"):
        assert call in consequence


def test_an_inference_only_module_is_not_called_cut() -> None:
    class Inference(mistaken_ties._FunctionalDecoder):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            z = torch.tanh(self.encoder(x))
            return F.linear(z, self.encoder.weight.t(), self.decoder_bias)

    assert not [finding for finding in ties.findings(Inference()) if finding.breaks_now]
