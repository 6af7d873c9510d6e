"""The five ways in which people tie weights all become bundles with one copy of each weight."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import five_ways
import pytest
import torch

from tiedexport import copies
from tiedexport.bundle import open_bundle, safetensors_layout
from tiedexport.export import build
from tiedexport.foreign import checkpoint
from tiedexport.foreign.brought import Asked
from tiedexport.onnx_files import load, stored_tensors
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("quick_export")

STAGES = ("encoder", "decoder", "autoencoder")
CASES = [(way, bias) for way in five_ways.FIVE_WAYS for bias in (True, False)]


def module_of(way: str, bias: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return five_ways.FIVE_WAYS[way](bias=bias)


@pytest.fixture(scope="module", params=CASES, ids=lambda c: c[0] + ("" if c[1] else " no bias"))
def case(request: pytest.FixtureRequest) -> tuple[str, bool]:
    return request.param


@pytest.fixture(scope="module")
def read(case: tuple[str, bool]) -> Checkpoint:
    return checkpoint(module_of(*case), Asked()).checkpoint


def test_each_way_is_read_as_the_same_layers_with_each_weight_once(case, read: Checkpoint):
    layers = read.config.layers
    assert [layer.op for layer in layers] == [
        "dense", "relu", "dense", "relu", "dense", "relu", "dense", "sigmoid",
    ]  # fmt: skip
    assert read.config.encoder_layers == 4
    dense = layers[::2]
    assert [layer.transposed for layer in dense] == [False, False, True, True]
    assert [layer.weight for layer in dense[:2]] == [layer.weight for layer in dense[:1:-1]]
    assert all((layer.bias is not None) == case[1] for layer in dense)
    sizes = [tensor.numel() for tensor in read.state.values()]
    assert sum(sizes) == 20 * 13 + 13 * 7 + (13 + 7 + 13 + 20) * case[1]
    assert [len(tie.uses) for tie in read.module().ties] == [2, 2]


def test_it_computes_what_the_module_computes(case, read: Checkpoint):
    module, ours = module_of(*case).double(), copy.deepcopy(read.module()).double()
    x = torch.rand(5, 20, dtype=torch.float64)
    with torch.no_grad():
        code = module.encode(x)
        torch.testing.assert_close(ours.encode(x), code, rtol=1e-12, atol=0)
        torch.testing.assert_close(ours.decode(code), module.decode(code), rtol=1e-12, atol=0)


def test_a_program_of_it_is_read_as_the_module_is(case, read: Checkpoint, tmp_path: Path):
    program = torch.export.export(
        module_of(*case).eval(),
        (torch.zeros(2, 20),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    torch.export.save(program, tmp_path / "program.pt2")
    brought = checkpoint(tmp_path / "program.pt2", Asked())
    assert any("code: what goes into the second use" in note for note in brought.notes)
    assert brought.checkpoint.config == read.config
    for name, tensor in read.state.items():
        assert torch.equal(brought.checkpoint.state[name], tensor)


@pytest.mark.parametrize(("way", "bias"), CASES[::3], ids=str)
def test_its_bundle_holds_each_weight_once_and_passes_in_every_runtime(way, bias, tmp_path: Path):
    build(module_of(way, bias), tmp_path / "b.tied", target=())
    bundle = open_bundle(tmp_path / "b.tied")
    assert len(bundle.manifest.ties) == 2
    for precision in bundle.manifest.precisions:
        layout = safetensors_layout(bundle.weights_path(precision))
        stored_bytes = sum(length for *_, length in layout.values())
        assert stored_bytes == bundle.manifest.parameter_count * precision.itemsize
        graphs = [bundle.graph(stage, precision) for stage in STAGES]
        stored = [tensor for path in graphs for tensor in stored_tensors(load(path), path)]
        for group in copies.find(stored):
            places = {group.original.place, *(copy.tensor.place for copy in group.copies)}
            assert len(places) == 1, group
    result = verify(bundle)
    assert result.passed
    ran = {row.runtime for row in result.comparisons if row.status == "passed"}
    assert {"onnxruntime", "torch", "reference"} <= ran
