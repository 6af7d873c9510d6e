"""The README's Python runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import make_checkpoint

from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.recipe import load_recipe

if TYPE_CHECKING:
    from typing import Any

README = Path(__file__).parent.parent / "README.md"


def block(language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_embedding_example_runs_in_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = make_checkpoint("autoencoder", {"widths": [784, 16]})
    save_checkpoint(Path("digits.pt"), checkpoint)
    build("digits.pt", "digits.tied", precision="fp32", target=())
    names: dict[str, Any] = {}
    code = block("python")
    assert len(code.splitlines()) <= 10
    exec(code, names)
    np.testing.assert_allclose(names["out"], names["pictures"], rtol=0, atol=1e-5)


def test_the_example_recipe_is_valid(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(block("toml"))
    load_recipe(tmp_path / "recipe.toml")


def test_the_tables_are_those_of_the_recorded_results() -> None:
    script = README.parent / "bench" / "readme.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
