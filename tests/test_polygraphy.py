"""Polygraphy, as its users run it, agrees with a bundle, both ways."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_line import tiedexport
from polygraphy.comparator import RunResults
from polygraphy.tools import main

from tiedexport import layerwise
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle

FP32, FP16, _ = Precision

# As Polygraphy looks for its extensions.
pytestmark = pytest.mark.filterwarnings("ignore:SelectableGroups dict:DeprecationWarning")


def polygraphy(*arguments: object, cwd: Path) -> int:
    """What `polygraphy` ends with; in this process, where its libraries are loaded already."""
    with contextlib.chdir(cwd):
        return int(main([str(argument) for argument in arguments]))


def installed_polygraphy(*arguments: object, cwd: Path) -> int:
    """The same of the program as its users start it."""
    program = Path(sys.executable).with_name("polygraphy")
    return subprocess.run([program, *map(str, arguments)], cwd=cwd, check=False).returncode


def largest_bound(bundle: Bundle, stage: str, precision: Precision) -> float:
    """Of any layer of a stage."""
    rows = layerwise.expected(bundle, bundle.manifest.stage(stage), precision, FP32)
    return max(float(row.bounded.bound.max()) for row in rows)


def saved_by_us(bundle: Bundle, stage: str, folder: Path, *more: str) -> None:
    done = tiedexport(
        *("verify", bundle.path, "--stage", stage, "--runtime", "onnxruntime", *more),
        *("--save-inputs", "inputs.json", "--save-outputs", "ours.json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr


def compared(
    bundle: Bundle,
    stage: str,
    precision: Precision,
    folder: Path,
    *more: str,
    program: Callable[..., int] = polygraphy,
) -> int:
    """The exit code of `polygraphy run` of a graph against our file."""
    atol = 2 * largest_bound(bundle, stage, precision)
    return program(
        *("run", bundle.graph(stage, precision), "--onnxrt", *more),
        *("--load-inputs", "inputs.json", "--load-outputs", "ours.json"),
        *("--rtol", "0", "--atol", f"{atol:.6e}"),
        cwd=folder,
    )


def shift(file: Path, output: str, by: float) -> None:
    """Move one output of every runner."""
    results = RunResults.load(str(file))
    for _, iterations in results.items():
        iterations[0][output] = iterations[0][output] + np.float32(by)
    results.save(str(file))


def test_polygraphy_agrees_with_our_outputs_unless_they_are_wrong(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    saved_by_us(dense_bundle, "decoder", tmp_path, "--precision", "fp32")
    assert compared(dense_bundle, "decoder", FP32, tmp_path) == 0
    fault = 1e3 * largest_bound(dense_bundle, "decoder", FP32)
    shift(tmp_path / "ours.json", "reconstruction", fault)
    assert compared(dense_bundle, "decoder", FP32, tmp_path) == 1


def test_polygraphy_agrees_with_every_layer_of_ours_unless_one_is_wrong(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    bundle, all_of_them = bundles["conv"], ("--onnx-outputs", "*")
    saved_by_us(bundle, "autoencoder", tmp_path, "--precision", "fp16", "--layers")
    assert compared(bundle, "autoencoder", FP16, tmp_path, *all_of_them) == 0
    hidden = bundle.manifest.stage("autoencoder").layers[4].output
    fault = 1e3 * largest_bound(bundle, "autoencoder", FP16)
    shift(tmp_path / "ours.json", hidden, fault)
    assert compared(bundle, "autoencoder", FP16, tmp_path, *all_of_them) == 1


def test_outputs_that_polygraphy_saved_are_judged_layer_by_layer(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = dense_bundle
    saved_by_us(bundle, "encoder", tmp_path)
    code = polygraphy(
        *("run", bundle.graph("encoder", FP16), "--onnxrt", "--onnx-outputs", "*"),
        *("--load-inputs", "inputs.json", "--save-outputs", "theirs.json"),
        cwd=tmp_path,
    )
    assert code == 0
    call = ("verify", bundle.path, "--stage", "encoder", "--precision", "fp16")
    call += ("--runtime", "reference", "--layers", "--load-outputs", "theirs.json")
    judged = tiedexport(*call, cwd=tmp_path)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "(from theirs.json)" in " ".join(judged.stdout.split())
    shift(tmp_path / "theirs.json", "gemm_1_output", 1e3 * largest_bound(bundle, "encoder", FP16))
    judged = tiedexport(*call, cwd=tmp_path)
    assert judged.returncode == 1
    assert "strays at gemm_1_output" in " ".join(judged.stdout.split())
    assert "FAILED at gemm_1_output (onnxrt-runner" in judged.stdout


@pytest.mark.parametrize("by", [0.0, 1.0])
def test_the_installed_program_says_the_same(bundles: dict[str, Bundle], by: float, tmp_path: Path):
    bundle = bundles["dense"]
    saved_by_us(bundle, "decoder", tmp_path, "--precision", "fp32")
    shift(tmp_path / "ours.json", bundle.manifest.stage("decoder").outputs[0].name, by)
    code = compared(bundle, "decoder", FP32, tmp_path, program=installed_polygraphy)
    assert code == (1 if by else 0)
