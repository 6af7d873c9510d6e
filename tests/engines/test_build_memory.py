"""What a build of large weights holds at most, above what every build does."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import needs_rtx
from onnx import TensorProto
from tied_graphs import autoencoder_nodes, autoencoder_stage, graph, shared_request

from tiedexport.engines import EngineRequest
from tiedexport.spec import Precision

LATENT, FEATURES = 12288, 16384
WEIGHT_BYTES = 2 * LATENT * FEATURES
"""384 MiB: below, the builder's buffers of 64 MiB weigh more than the weights."""


def request_of(folder: Path, weights: str, latent: int, features: int) -> EngineRequest:
    """The tied autoencoder; its weights, where it has any, lie in a file that is written fast."""
    shapes = {"w": (latent, features), "b": (latent,), "c": (features,)}
    fields = {"stage": autoencoder_stage(features), "weights": weights}
    if weights == "shared":
        model = graph(autoencoder_nodes(Precision.FP16), [features], shapes, Precision.FP16)
        return shared_request("rtx", graph=model.SerializeToString(), **fields)
    folder.mkdir()
    noise = np.random.default_rng(0).standard_normal(2**19).astype(np.float16).tobytes()
    initializers = []
    with (folder / "weights.bin").open("wb") as file:
        for name, shape in shapes.items():
            length, offset = 2 * int(np.prod(shape)), file.tell()
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=shape)
            tensor.raw_data = b""
            onnx.external_data_helper.set_external_data(tensor, "weights.bin", offset, length)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            initializers.append(tensor)
            for start in range(0, length, len(noise)):
                file.write(noise[: length - start])
    model = graph(autoencoder_nodes(Precision.FP16), [features], {}, Precision.FP16, initializers)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return shared_request("rtx", graph=folder / "model.onnx", weight_names=(), **fields)


@needs_rtx
@pytest.mark.parametrize(("weights", "most"), [("shared", 0.2), ("baked", 2.5)])
def test_a_build_holds_few_copies_of_the_weights(weights, most, tmp_path: Path):
    small = request_of(tmp_path / "small", weights, 64, 128)
    large = request_of(tmp_path / "large", weights, LATENT, FEATURES)
    (tmp_path / "two").write_bytes(pickle.dumps([small, large]))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("peak_of_build.py"), tmp_path / "two"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for file in tmp_path.rglob("weights.bin"):
        file.unlink()
    assert int(done.stdout) <= most * WEIGHT_BYTES
