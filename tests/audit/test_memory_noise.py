"""The stage of process memory says nothing where its noise is as large as a second copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from command_line import tiedexport
from conftest import make_checkpoint, needs_native
from retied import model, weight

from tiedexport.audit import audit, process
from tiedexport.audit.child import Done, OpenGraphs
from tiedexport.audit.process import MARGIN
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.results.ties import Stage


def healthy(path: Path, width: int, between: int = 1) -> Path:
    """A tied pair of Gemm with `between` nodes between them."""
    steps = "".join(
        f"v{index + 1} = {'Sigmoid' if index % 2 else 'Tanh'}(v{index}) "
        for index in range(between)
    )
    graph = (
        f"g (float[N, {width}] x) => (float[N, {width}] y) "
        f"{{ v0 = Gemm <transB = 1> (x, w) {steps} y = Gemm(v{between}, w) }}"
    )
    onnx.save(model(graph, w=weight(width, width)), path)
    return path


def in_memory(path: Path) -> Stage:
    """The row that counts."""
    rows = audit([path]).stages
    return next(row for row in rows if row.name == "process memory" and row.counts)


@pytest.mark.parametrize("width", [24, 128, 256, 500])
def test_a_weight_as_small_as_the_noise_is_not_measured(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a sample says of it, the other stages decide."""
    path = healthy(tmp_path / "small.onnx", width)
    monkeypatch.setattr(process, "ask", lambda *_: [Done(grown_bytes=1 << 30)])
    row = in_memory(path)
    assert row.status == "not run"
    assert "too small to tell from the allocator's noise" in row.reason
    assert tiedexport("audit", path, "--fail-on-copies", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("width", "between", "status"), [(1024, 800, "not run"), (1800, 1500, "one copy")]
)
def test_a_session_of_many_nodes_is_no_second_copy(
    width: int, between: int, status: str, tmp_path: Path
) -> None:
    """800 nodes take 2 MiB themselves: more than the margin over a weight of 4 MiB."""
    row = in_memory(healthy(tmp_path / "deep.onnx", width, between))
    assert row.status == status
    if status == "one copy":
        assert row.stored_bytes > MARGIN * row.needed_bytes + (256 << 10)


@pytest.fixture(scope="module")
def deep_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty layers, of which a session of ONNX Runtime keeps as much as of their weights."""
    path = tmp_path_factory.mktemp("deep") / "deep.pt"
    save_checkpoint(path, make_checkpoint("autoencoder", {"widths": [96] * 31}))
    build(path, precision="fp32", target=())
    return path.with_suffix(".tied")


@needs_native
def test_a_deep_bundle_is_one_copy_in_the_native_runtime(deep_bundle: Path) -> None:
    assert in_memory(deep_bundle).status == "one copy"


def test_a_deep_bundle_is_no_second_copy(deep_bundle: Path, without_native: None) -> None:
    row = in_memory(deep_bundle)
    assert row.status == "not run"
    assert "too small to tell a second copy" in row.reason


def test_the_graph_to_compare_with_has_as_many_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(job: OpenGraphs) -> list[Done]:
        asked.append(job)
        return [Done()]

    monkeypatch.setattr(process, "ask", answer)
    path = healthy(tmp_path / "deep.onnx", 640, between=7)
    assert in_memory(path).status == "one copy"
    assert [job.nodes for job in asked] == [(9,), (9,)]
    assert [job.memory for job in asked] == ["shared", "packed"]
