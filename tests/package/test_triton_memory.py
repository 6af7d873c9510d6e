"""How often the real Triton server holds the weights of three models in two instances each."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import make_checkpoint
from triton_server import needs_triton, triton_server

from tiedexport.bundle import open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.memory import data_pss_bytes
from tiedexport.package import package

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle

LARGE = [4096, 4096]
WEIGHT_BYTES = 4 * LARGE[0] * LARGE[1]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> dict[str, Bundle]:
    """A bundle whose weights count, and one whose do not."""
    folder = tmp_path_factory.mktemp("of_two_sizes")
    opened = {}
    for name, widths in (("large", LARGE), ("small", [64, 32])):
        save_checkpoint(folder / "m.pt", make_checkpoint("autoencoder", {"widths": widths}))
        build(folder / "m.pt", folder / name, precision="fp32", target=())
        opened[name] = open_bundle(folder / name)
    return opened


def held_bytes(bundle: Bundle, runtime: str, folder: Path) -> int:
    """What all processes of a server hold that serves a bundle, by Pss.

    Each instance has computed by then: the server warms it up.
    """
    package(bundle, folder / "models", runtime=runtime, instances=2, preferred_batch=(2,))
    with triton_server(folder / "models", folder) as server:
        assert len(server.processes) == 1 + 3 * 2
        return sum(map(data_pss_bytes, server.processes))


_SESSIONS = """
import sys
import numpy, onnxruntime
from tiedexport.memory import data_pss_bytes
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
before, sessions = data_pss_bytes(), []
for model in sys.argv[1:] * 2:
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    session.run(None, {given.name: numpy.zeros((2, given.shape[1]), numpy.float32)})
    sessions.append(session)
print(data_pss_bytes() - before)
"""
"""What the onnxruntime backend does: a session an instance, in one process, of graphs as given."""


def test_sessions_of_all_graphs_hold_each_weight_once(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    package(bundles["large"], tmp_path, backend="onnxruntime")
    graphs = sorted(tmp_path.glob("*/1/model.onnx"))
    command = [sys.executable, "-c", _SESSIONS, *map(str, graphs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(graphs) == 3
    assert 0.9 * WEIGHT_BYTES <= int(done.stdout) <= 1.2 * WEIGHT_BYTES


@needs_triton
@pytest.mark.parametrize("runtime", ["native", "onnxruntime"])
def test_three_models_of_two_instances_hold_each_weight_once(
    bundles: dict[str, Bundle], tmp_path: Path, runtime: str
) -> None:
    held = {name: held_bytes(bundle, runtime, tmp_path / name) for name, bundle in bundles.items()}
    assert 0.9 * WEIGHT_BYTES <= held["large"] - held["small"] <= 1.2 * WEIGHT_BYTES
