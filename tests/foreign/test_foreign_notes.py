"""What `build` assumed of a model reaches whoever reads its result, also without progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from command_line import tiedexport

if TYPE_CHECKING:
    from pathlib import Path

ASSUMED = "a state dict cannot tell, so assumed: activation=relu"


def tied(folder: Path, *widths: tuple[int, int]) -> Path:
    torch.manual_seed(0)
    state = {f"encoder.{i}.weight": torch.randn(size) for i, size in enumerate(widths)}
    torch.save(state, folder / "sd.pt")
    return folder / "sd.pt"


@pytest.mark.parametrize("quiet", [True, False])
def test_an_assumption_is_in_the_json_and_printed(quiet: bool, tmp_path: Path) -> None:
    tied(tmp_path, (3, 5))
    options = ["--family", "autoencoder", "--target", "none", "--json", "b.json", *["-q"] * quiet]
    done = tiedexport("build", "sd.pt", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(ASSUMED) == 1
    notes = msgspec.json.decode((tmp_path / "b.json").read_bytes())["notes"]
    assert any(note.startswith(ASSUMED) for note in notes)
    again = tiedexport("build", "sd.pt", *options[:4], "-q", "--json", "-", cwd=tmp_path)
    assert msgspec.json.decode(again.stdout)["notes"] == notes


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ([(3, 5)], "so encoder.0 serves both ways"),
        ([(4, 5), (3, 4)], "so encoder.0, encoder.1 serve both ways"),
    ],
)
def test_one_serves_and_several_serve(
    widths: list[tuple[int, int]], words: str, tmp_path: Path
) -> None:
    path = tied(tmp_path, *widths)
    plan = tiedexport("build", path, "--family", "autoencoder", "--dry-run", cwd=tmp_path)
    assert words in plan.stdout
