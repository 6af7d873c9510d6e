"""Plans that TensorRT-RTX really built, run by the device runner on the recording double.

What the builder records is what the runner reads: names, roles, types, profiles, halves. The
double knows a plan by its bytes and computes sums in place of its network.
"""

from __future__ import annotations

import numpy as np
import pytest
import recorded_machine
from conftest import MODELS, needs_rtx
from recording_tensorrt import Engine, Tensor

from tiedexport import trt
from tiedexport.bundle import open_bundle
from tiedexport.export import build
from tiedexport.session import open_session

INPUTS, *_, CODE = MODELS["dense"][1]["widths"]


@needs_rtx
@pytest.mark.parametrize("weights", ["shared", "one-plan"])
def test_recorded_plans_as_they_are_built(
    tmp_path, checkpoints, quick_export, monkeypatch, weights
):
    path = tmp_path / "dense.tied"
    target, version = ("rtx:sm89",), trt.load("tensorrt_rtx").version
    build(checkpoints["dense"], path, precision="fp16", target=target, weights=weights)
    bundle = open_bundle(path)
    monkeypatch.setattr(recorded_machine, "VERSION", version)
    gpu = recorded_machine.recorded_machine(monkeypatch)
    for plan in bundle.manifest.plans:
        tensors = [Tensor(b.name, b.role, b.dtype, b.shape) for b in plan.bindings]
        gpu.plans[(path / plan.file).read_bytes()] = Engine(gpu, tensors, plan.profiles)
    x = np.random.default_rng(0).random((300, INPUTS), np.float32)  # the profile ends at 256
    z = np.random.default_rng(1).random((3, CODE), np.float32)
    with open_session(bundle, runtime="tensorrt_rtx") as session:
        code, decoded, y = session.encode(x), session.decode(z), session.reconstruct(x)
    sums = x.astype(np.float64).sum(axis=1)
    if weights == "one-plan":
        np.testing.assert_allclose(code[:, 0], sums, rtol=1e-6)
        np.testing.assert_allclose(decoded[:, 0], z.sum(axis=1), rtol=1e-6)
        np.testing.assert_allclose(y[:, 0], CODE * sums, rtol=1e-6)
    else:
        total = sum(w.astype(np.float64).sum() for w in bundle.weights(plan.precision).values())
        np.testing.assert_allclose(y[:, 0], total * sums, rtol=1e-6)
        assert gpu.log.count("allocate 520") == 1  # the first weight, 13 × 20 in fp16
