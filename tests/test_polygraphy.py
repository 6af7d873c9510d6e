"""Polygraphy, as its users run it, agrees with a bundle's golden pairs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from polygraphy.comparator import RunResults
from polygraphy.json import save_json

from tiedexport import rounding
from tiedexport.bundle import Bundle
from tiedexport.spec import Precision


def polygraphy_run(bundle: Bundle, stage: str, folder: Path, fault: float) -> int:
    """`polygraphy run` on a graph against the golden output, off by `fault` bounds."""
    spec = bundle.manifest.stage(stage)
    x, y = spec.inputs[0].name, spec.outputs[0].name
    golden = bundle.golden
    bound = rounding.forward_bound(
        spec.layers,
        bundle.weights(Precision.FP32),
        golden[x].astype(np.float64),
        precision=Precision.FP32,
        accumulation=Precision.FP32,
        io=Precision.FP32,
    ).bound
    save_json([{x: golden[x].astype(np.float32)}], str(folder / "inputs.json"))
    outputs = RunResults()
    shifted = (golden[y] + fault * bound).astype(np.float32)
    outputs.add([{y: shifted}], runner_name="golden")
    outputs.save(str(folder / "outputs.json"))
    command = ["polygraphy", "run", bundle.graph(stage, Precision.FP32), "--onnxrt"]
    command += ["--load-inputs", folder / "inputs.json", "--load-outputs", folder / "outputs.json"]
    command += ["--rtol", "0", "--atol", f"{2 * bound.max():.6e}"]
    program = Path(sys.executable).with_name("polygraphy")
    done = subprocess.run([program, *map(str, command[1:])], capture_output=True, check=False)
    return done.returncode


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
@pytest.mark.parametrize("fault", [0.0, 1e3])
def test_the_golden_pairs_in_polygraphy_s_format_pass_its_own_check_unless_they_are_wrong(
    bundles: dict[str, Bundle], stage: str, fault: float, tmp_path: Path
) -> None:
    assert (polygraphy_run(bundles["dense"], stage, tmp_path, fault) == 0) == (fault == 0)
