"""The README's Python runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_line import tiedexport
from conftest import make_checkpoint, needs_rtx

from tiedexport import trt
from tiedexport.bundle import open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.recipe import load_recipe

if TYPE_CHECKING:
    from typing import Any

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str, section: str = "") -> list[str]:
    """The fenced blocks of a language, of the section between two comments or of the whole."""
    text = README.read_text()
    if section:
        found = re.search(rf"<!-- {section}:begin -->(.*?)<!-- {section}:end -->", text, re.DOTALL)
        assert found is not None
        text = found[1]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(section: str) -> dict[str, Any]:
    """The names that the Python of a section leaves."""
    names: dict[str, Any] = {"__name__": "readme"}
    for code in blocks("python", section):
        exec(code, names)
    return names


def test_the_embedding_example_runs_in_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = make_checkpoint("autoencoder", {"widths": [784, 16]})
    save_checkpoint(Path("digits.pt"), checkpoint)
    build("digits.pt", "digits.tied", precision="fp32", target=())
    assert len(blocks("python", "embed")[0].splitlines()) <= 10
    names = run("embed")
    np.testing.assert_allclose(names["out"], names["pictures"], rtol=0, atol=1e-5)


def test_the_example_recipe_is_valid(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(blocks("toml")[0])
    load_recipe(tmp_path / "recipe.toml")


@needs_rtx
def test_the_engine_recipes_run_and_new_weights_leave_every_plan_as_it_is(tmp_path: Path) -> None:
    for seed, name in enumerate(("digits.pt", "retrained.pt")):
        model = make_checkpoint("autoencoder", {"widths": [784, 16]}, seed)
        save_checkpoint(tmp_path / name, model)
    written: list[dict[str, str]] = []
    for line in re.findall(r"^tiedexport (.*)$", blocks("", "engines")[0], re.MULTILINE):
        words = line.partition("#")[0].split()
        done = tiedexport(*words, "--quiet", cwd=tmp_path)
        if words[-1] == "tensorrt" and not trt.driver().available:
            assert done.returncode == 3
            assert "no CUDA driver" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        files = open_bundle(tmp_path / "digits.tied").manifest.files
        written.append({file: record.sha256 for file, record in files.items()})
    first, added, retrained = written[0], *written[-2:]
    assert first.items() < added.items()
    changed = {file for file in added if retrained[file] != added[file]}
    assert changed == {"golden.npz", "weights.fp16.safetensors", "weights.fp32.safetensors"}


def test_the_tables_are_those_of_the_recorded_results() -> None:
    script = README.parent / "bench" / "readme.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
