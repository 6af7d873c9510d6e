"""No verb writes over what it reads, nor one result over the other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
from command_line import tiedexport

if TYPE_CHECKING:
    from pathlib import Path

EXIT_USAGE = 2


def inputs(folder: Path) -> None:
    for name in ("w.onnx", "w.pt", "recipe.toml", "x.npy"):
        (folder / name).write_bytes(b"precious")
    torch.save({"layers.0.weight": torch.rand(3, 4)}, folder / "sd.pt")
    (folder / "link.json").symlink_to(folder / "w.onnx")


@pytest.mark.parametrize(
    "call",
    [
        "audit w.onnx --json w.onnx",
        "audit --json w.onnx w.onnx",
        "audit sd.pt w.onnx --json ./w.onnx",
        "audit w.onnx --report w.onnx",
        "audit w.onnx --json link.json",
        "retie w.onnx -o out --json w.onnx",
        "retie sd.pt w.onnx -o out --json w.onnx",
        "build sd.pt --family autoencoder --target none --json sd.pt",
        "build sd.pt --family autoencoder --samples x.npy --json x.npy",
        "build w.pt --json w.pt --dry-run",
        "train recipe.toml --json recipe.toml",
        "train recipe.toml -o recipe.toml",
        "train recipe.toml --data x.npy -o x.npy",
        "run m.tied encode x.npy -o x.npy",
    ],
)
def test_an_input_is_never_overwritten(call: str, tmp_path: Path) -> None:
    inputs(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = tiedexport(*call.split(), cwd=tmp_path)
    assert done.returncode == EXIT_USAGE, done.stderr
    assert "would overwrite the input" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "call", ["audit sd.pt --json a.html --report ./a.html", "train recipe.toml -o a --json a"]
)
def test_two_outputs_are_two_files(call: str, tmp_path: Path) -> None:
    inputs(tmp_path)
    done = tiedexport(*call.split(), cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert "would both write" in done.stderr
    assert "a.html" not in os.listdir(tmp_path)


def test_a_result_replaces_an_older_one_and_goes_to_devices(tmp_path: Path) -> None:
    inputs(tmp_path)
    for place in ("a.json", "a.json", "/dev/null", "-"):
        done = tiedexport("audit", "sd.pt", "--json", place, "-q", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_only_json_goes_to_standard_output(tmp_path: Path) -> None:
    inputs(tmp_path)
    done = tiedexport("audit", "sd.pt", "--report", "-", cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert "only --json takes -" in done.stderr
    assert "-" not in os.listdir(tmp_path)


@pytest.mark.parametrize(
    "call", [["inspect", ""], ["verify", ""], ["retie", "", "-o", "out"], ["train", ""]]
)
def test_an_empty_name_is_not_this_folder(call: list[str], tmp_path: Path) -> None:
    done = tiedexport(*call, cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert "an empty name" in done.stderr


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_a_file_that_is_no_earlier_result_stays(option: str, tmp_path: Path) -> None:
    inputs(tmp_path)
    (tmp_path / "weights.data").write_bytes(bytes(8))
    done = tiedexport("audit", "w.onnx", option, "weights.data", cwd=tmp_path)
    assert done.returncode == EXIT_USAGE, done.stderr
    assert "something else" in done.stderr
    assert (tmp_path / "weights.data").read_bytes() == bytes(8)


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_an_earlier_result_is_replaced(option: str, tmp_path: Path) -> None:
    inputs(tmp_path)
    for _ in range(2):
        assert tiedexport("audit", "sd.pt", option, "result", cwd=tmp_path).returncode == 0
