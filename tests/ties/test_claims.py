"""What findings say will go wrong does go wrong, with the torch of today."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import mistaken_ties
import onnx
import pytest
import torch
from five_ways import FIVE_WAYS
from torch import nn

from tiedexport import ties

if TYPE_CHECKING:
    from pathlib import Path

ALIASES = [mistaken_ties.ParameterOfTranspose, mistaken_ties.DataAssignment]
alias = pytest.mark.parametrize("mistake", ALIASES, ids=lambda mistake: mistake.__name__)


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """How far one step moves the encoder's weight."""
    before = module.encoder.weight.detach().clone()
    module(torch.rand(4, 12)).square().sum().backward()
    optimizer.step()
    return (module.encoder.weight.detach() - before).abs()


def quantize(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what people call
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


@alias
def test_adam_takes_two_steps_for_one_weight(mistake: type[nn.Module]) -> None:
    twice, once = mistake(), mistaken_ties.DeadWeight()
    for module, most in ((twice, 2e-3), (once, 1e-3)):
        moved = step(module, torch.optim.Adam(module.parameters(), 1e-3))
        assert float(moved.max()) == pytest.approx(most, rel=1e-2)


@alias
def test_weight_decay_counts_twice(mistake: type[nn.Module]) -> None:
    module = mistake()
    before = module.encoder.weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, weight_decay=0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(module.encoder.weight.detach(), before * 0.99**2)


@alias
@pytest.mark.parametrize(
    "call",
    [copy.deepcopy, lambda module: module.to(torch.float64)],
    ids=["copy.deepcopy", ".to(dtype)"],
)
def test_a_copy_parts_two_parameters_in_one_memory(mistake: type[nn.Module], call: object) -> None:
    assert callable(call)
    module = call(mistake())
    with torch.no_grad():
        module.encoder.weight.zero_()
    assert module.decoder.weight.detach().any()


@pytest.mark.parametrize("way", FIVE_WAYS)
def test_the_five_ways_survive_copies_and_casts(way: str) -> None:
    ties.assert_tied(copy.deepcopy(FIVE_WAYS[way]((12, 5))).to(torch.float64))


@pytest.mark.usefixtures("quick_export")
def test_an_export_stores_two_parameters(tmp_path: Path) -> None:
    class Large(mistaken_ties.DataAssignment):
        input_shape = (128,)
        code = 96

    path = tmp_path / "twice.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making
        torch.onnx.export(
            Large(), (torch.rand(2, 128),), path, dynamo=True, verbose=False, external_data=False
        )
    sizes = [tuple(one.dims) for one in onnx.load(path).graph.initializer]
    assert sum(len(size) == 2 for size in sizes) == 2


def test_training_leaves_a_frozen_clone_behind() -> None:
    module = mistaken_ties.FrozenClone()
    step(module, torch.optim.SGD(module.parameters(), 0.1))
    assert not torch.equal(module.decoder.weight, module.encoder.weight.t())


def test_training_parts_two_equal_parameters() -> None:
    module = mistaken_ties.ClonedOnce()
    step(module, torch.optim.SGD(module.parameters(), 0.1))
    assert not torch.equal(module.decoder.weight, module.encoder.weight.t())


def test_a_view_taken_once_stays_behind() -> None:
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(mistaken_ties.ViewTakenOnce())
    module = mistaken_ties.ViewTakenOnce().to(torch.float64)
    assert module.decoder_weight.dtype == torch.float32


def test_a_detached_attribute_is_in_no_checkpoint() -> None:
    assert "decoder_weight" not in mistaken_ties.DetachedAttribute().state_dict()


def test_a_kept_transpose_does_not_train() -> None:
    module = mistaken_ties.CachedTranspose()
    module(torch.rand(2, 12))
    step(module, torch.optim.SGD(module.parameters(), 0.1))
    assert module.cached is not None
    assert not torch.equal(module.cached, module.encoder.weight.t())


def test_a_copied_closure_computes_with_the_old_weight() -> None:
    module = mistaken_ties.Closure()
    copied, z = copy.deepcopy(module), torch.rand(2, 5)
    with torch.no_grad():
        copied.encoder.weight.zero_()
    torch.testing.assert_close(copied.decode(z), module.decode(z))


def test_a_dead_original_is_in_every_checkpoint() -> None:
    names = mistaken_ties.DeadOriginal().state_dict()
    assert "decoder.parametrizations.weight.original" in names


@alias
def test_quantisation_packs_two_weights(mistake: type[nn.Module]) -> None:
    module = quantize(mistake())
    (finding,) = ties.findings(module)
    assert finding.kind == "tie lost by quantisation"
    assert finding.where == "encoder and decoder"


@pytest.mark.parametrize("way", ["mirror_linear", "linear_and_functional"])
def test_quantisation_breaks_a_forward_pass_that_reads_the_weight(way: str) -> None:
    module = quantize(FIVE_WAYS[way]())
    with pytest.raises(AttributeError):
        module(torch.rand(2, 20))
    assert any("forward pass fails" in one.consequence for one in ties.findings(module))


@pytest.mark.parametrize("zero", [False, True], ids=["random", "zero"])
def test_quantisation_of_untied_layers_loses_nothing(zero: bool) -> None:
    module = mistaken_ties.TwoLinears()
    for layer in (module.encoder, module.decoder) if zero else ():
        nn.init.zeros_(layer.weight)
    assert ties.findings(quantize(module)) == ()


@pytest.mark.parametrize("way", ["functional", "parametrized"])
def test_quantisation_leaves_the_others_alone_or_refuses(way: str) -> None:
    try:
        module = quantize(FIVE_WAYS[way]())
    except AssertionError:
        return  # a parametrized layer is refused aloud
    assert all(proof.holds for proof in ties.check(module))


def test_the_call_that_leaves_tied_layers_alone_does() -> None:
    class WithHead(nn.Module):
        input_shape = (20,)

        def __init__(self) -> None:
            super().__init__()
            self.tied = FIVE_WAYS["linear_and_functional"]()
            self.head = nn.Linear(20, 20)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.tied(x))

    module = WithHead()
    (finding,) = ties.findings(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = eval(finding.instead, {"torch": torch}, {"self": module})
    assert isinstance(done.tied.layers[0].encoder, nn.Linear)
    assert not isinstance(done.head, nn.Linear)
    assert done(torch.rand(2, 20)).shape == (2, 20)
