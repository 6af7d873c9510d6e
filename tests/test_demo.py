"""The whole path in one call, on a recipe small enough for a test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import handmade_ties
import pytest

from tiedexport import demo
from tiedexport.errors import MissingRuntimeError
from tiedexport.measure import turns
from tiedexport.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.results import BenchResult

RECIPE = """
[model]
family = "autoencoder"
widths = [64, 16, 8]

[data]
source = "sklearn-digits"
train = 64
held_back = 20

[training]
epochs = 2
batch_size = 16

[build]
precisions = ["fp32", "fp16"]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "digits.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked to be measured beside latency: limits of a machine take seconds."""
    asked: list[dict[str, Any]] = []

    def surround(result: BenchResult, _: object, **wanted: Any) -> BenchResult:
        asked.append(wanted)
        return result

    monkeypatch.setattr(demo.surroundings, "surround", surround)
    return asked


def test_the_demo_walks_the_whole_path_and_a_second_call_reuses_it(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, beside: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(demo, "recipe_path", lambda: recipe)
    monkeypatch.setattr(demo, "_DURATION_S", 0.01)
    first = demo.demo(tmp_path, progress=Progress(quiet=True))
    assert beside[0]["roofline"]
    assert first.audit.passed
    assert first.verify.passed
    assert any(row.status == "passed" for row in first.bench.latencies)
    report = (tmp_path / "report.html").read_text()
    assert "From stage to stage" in report
    assert first.report == str(tmp_path / "report.html")
    assert "<img" in report or "<svg" in report
    shown = re.sub(r"<script>.*?</script>", "", report, flags=re.DOTALL)
    assert not re.search(r"https?://(?!www\.w3\.org/)", shown), "the report asks the network"
    assert "<strong>What to deploy: </strong>" in shown
    assert "The codes" in shown
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "digits.tied").rglob("*")}
    weights = (tmp_path / "digits.pt").stat().st_mtime_ns

    monkeypatch.setattr(demo, "audit", lambda *_, **__: handmade_ties.untied())
    second = demo.demo(tmp_path, progress=Progress(quiet=True))
    assert second.verify.passed
    assert second.failed, "its audit did"
    assert second.train.record == first.train.record
    assert (tmp_path / "digits.pt").stat().st_mtime_ns == weights
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "digits.tied").rglob("*")} == written


def test_a_retrained_model_is_built_again(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "recipe_path", lambda: recipe)
    monkeypatch.setattr(demo, "audit", lambda *_, **__: handmade_ties.healthy())
    monkeypatch.setattr(demo.reporting, "present", lambda *_, output, **__: output)
    monkeypatch.setattr(turns, "TURN_S", 0.001)
    monkeypatch.setattr(demo, "_DURATION_S", 0.001)
    demo.demo(tmp_path, progress=Progress(quiet=True))
    before = (tmp_path / "digits.tied" / "manifest.json").read_bytes()
    (tmp_path / "digits.pt").unlink()
    demo.demo(tmp_path, progress=Progress(quiet=True))
    after = (tmp_path / "digits.tied" / "manifest.json").read_bytes()
    assert after != before


def test_the_reference_recipe_is_found_in_a_checkout() -> None:
    assert demo.recipe_path().name == "digits.toml"


def test_a_package_without_recipes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "package" / "demo.py"))
    with pytest.raises(MissingRuntimeError, match="recipe"):
        demo.recipe_path()
