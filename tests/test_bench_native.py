"""The bench of the native runtime: fair turns, whole figures, and goals that follow from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import make_checkpoint

from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import RuntimeFailedError
from tiedexport.export import build
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BENCH = Path(__file__).parent.parent / "bench"
PEER = "onnxruntime fp32 default"
OF_A_CONTENDER = {"median_s", "lower_quartile_s", "upper_quartile_s", "min_s"}
OF_SPEED = {
    "speed",
    "speed_by_round",
    "speed_by_round_lower_quartile",
    "speed_by_round_upper_quartile",
}


@pytest.fixture(autouse=True, scope="module")
def scripts() -> Iterator[None]:
    """The scripts of the folder find each other as they do when one is run."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Path:
    """The models of a quick run."""
    from native_parts import QUICK

    folder = tmp_path_factory.mktemp("bundles")
    for name, widths in QUICK.widths.items():
        path = folder / f"{name}-{'-'.join(map(str, widths))}.pt"
        save_checkpoint(path, make_checkpoint("autoencoder", {"widths": widths}))
        build(path, path.with_suffix(".tied"), precision="fp32,fp16,bf16", target=())
    return folder


@pytest.fixture
def quick(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """A quick run with more arguments → figures by script."""
    import native
    import record

    monkeypatch.setattr(record, "RESULTS", tmp_path)

    def run(*arguments: str) -> dict[str, Any]:
        native.main(["--quick", "--bundles", str(bundles), *arguments])
        (file,) = tmp_path.glob("*.json")
        return {name: kept["figures"] for name, kept in json.loads(file.read_bytes()).items()}

    return run


def test_every_case_has_all_contenders_or_why_they_did_not_run(
    quick: Callable[..., dict[str, Any]],
) -> None:
    kept = quick("--threads", "1", "--parts", "latency,call", "--only", "onnx,native,openvino")
    cases = kept["native_latency_1"]["cases"]
    assert set(cases) == {f"{model} batch {n}" for model in ("layer", "digits") for n in (1, 8)}
    native = runtime_named("native").availability()
    for name, case in cases.items():
        named = set(case["contenders"]) | set(case["not_run"])
        assert named >= {PEER, "onnxruntime fp32", "native fp32", "native fp16", "native bf16"}
        assert all(case["not_run"].values())
        assert PEER in case["contenders"], name
        assert ("native fp32" in case["contenders"]) == native.available, case["not_run"]
        for contender, found in case["contenders"].items():
            of_speed = set() if contender.startswith("reading") else OF_SPEED
            assert set(found) == OF_A_CONTENDER | of_speed
            assert all(value > 0 for value in found.values())
    reading = [way for way in cases["layer batch 1"]["contenders"] if way.startswith("reading")]
    assert bool(reading) == ("reading" not in cases["layer batch 1"]["not_run"])
    called = kept["native_call_1"]
    assert set(called["models"]) | set(called["not_run"]) == {"digits", "tiny"}
    for found in called["models"].values():
        assert set(found) == {"C", "bind", "reconstruct(x)", "reconstruct(x, out)"}


def test_with_two_threads_and_in_fresh_processes_figures_are_whole_too(
    quick: Callable[..., dict[str, Any]],
) -> None:
    kept = quick("--threads", "2", "--parts", "latency,memory", "--only", PEER)
    case = kept["native_latency_2"]["cases"]["digits batch 8"]
    assert set(case["contenders"]) == {PEER}
    assert case["contenders"][PEER]["speed"] == 1.0
    memory = kept["native_memory_2"]["contenders"][PEER]
    assert {"one_over_weight", "first_output_s"} <= set(memory)
    rows = {row["case"]: row for row in kept["native_goals"]["rows"]}
    assert "not_run" in rows["fp32, batch 8"]["1"]
    assert "native fp32" in rows["fp32, batch 8"]["2"]["not_run"]


def test_an_absent_contender_is_a_reason(
    quick: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ways

    monkeypatch.setattr(ways, "find_spec", lambda name: None)
    kept = quick("--threads", "1", "--parts", "latency", "--only", "openvino")
    absent = kept["native_latency_1"]["cases"]["layer batch 1"]["not_run"]
    assert "pip install openvino" in absent["openvino bf16 default"]


def test_turns_alternate_and_whoever_fails_leaves() -> None:
    from contenders import race

    log: list[str] = []

    def turn(name: str, fails_at: int = 99) -> Callable[[], dict[str, float]]:
        def take() -> dict[str, float]:
            log.append(name)
            if log.count(name) == fails_at:
                raise RuntimeFailedError("out of breath")
            return {f"{name} {part}": float(log.count(name)) for part in ("x", "y")}

        return take

    turns = {"a": turn("a"), "b": turn("b", fails_at=2), "c": turn("c")}
    figures, failed = race(turns, 3, 0.0)
    assert "".join(log) == "abccbaac"
    assert figures == {f"{name} {part}": [1, 2, 3] for name in "ac" for part in "xy"}
    assert list(failed) == ["b"]
    assert "out of breath" in failed["b"]


def test_a_turn_times_warm_calls_only() -> None:
    from contenders import TURN_S, turn_of

    asked: list[int] = []

    def take_turn(calls: int) -> np.ndarray:
        asked.append(calls)
        return np.array([10**9] + [2_000_000] * (calls - 1))

    assert turn_of("x", take_turn, TURN_S / 4)() == {"x": 0.002}
    assert asked == [5]  # one of them untimed


def test_speeds_are_of_the_base_in_the_same_rounds() -> None:
    from contenders import statistics

    found = statistics([1.0, 2.0, 4.0], [2.0, 6.0, 4.0])
    assert found["speed"] == 2.0
    assert found["speed_by_round"] == 2.0
    assert (found["min_s"], found["median_s"]) == (1.0, 2.0)


def test_what_computes_something_else_is_not_timed(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contenders
    from ways import Way

    class Wrong:
        def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
            return lambda: out.fill(0.5)

    monkeypatch.setattr(contenders, "opened", lambda *_: Wrong())
    wrong = contenders.WayContender(Way("torch", "fp32", "eager"), bundles / "tiny-8-4.tied", 1)
    with pytest.raises(RuntimeFailedError, match="something else"):
        wrong.prepare("autoencoder", 3, 0.0)


def goal_rows(native_s: float, peer_s: float) -> dict[str, dict[str, Any]]:
    """Goals by case where one layer takes so long at batch 1, and reading it two seconds."""
    from native_goals import goals

    contenders = {
        "native fp32": {"median_s": native_s},
        PEER: {"median_s": peer_s},
        "reading file/one": {"median_s": 3.0},
        "reading huge/four": {"median_s": 2.0},
    }
    latency = {"cases": {"layer batch 1": {"contenders": contenders}}}
    memory = {"contenders": {"native fp32": {"one_over_weight": native_s, "first_output_s": 0.06}}}
    calls = {"models": {"digits": {name: {"median_s": s} for name, s in (
        ("C", 1e-4), ("reconstruct(x, out)", 1e-4 + native_s * 1e-5))}}}  # fmt: skip
    parts = {"native_latency_1": latency, "native_memory_1": memory, "native_call_1": calls}
    rows = goals({script: {"figures": figures} for script, figures in parts.items()})
    return {row["case"]: row for row in rows}


@pytest.mark.parametrize(
    ("case", "good", "bad"),
    [
        ("fp32, batch 1, 256 MiB", 2.0, 2.2),
        ("memory, all stages open, batch up to 64, fp32, over the weight stored", 1.05, 1.06),
        ("what Python adds to a call", 1.49, 1.51),
        ("share of the machine's read bandwidth, batch 1, 256 MiB, fp32", 2.35, 2.36),
    ],
)
def test_a_goal_is_reached_or_missed(case: str, good: float, bad: float) -> None:
    assert goal_rows(good, 4.0)[case]["1"]["met"]
    assert not goal_rows(bad, 4.0)[case]["1"]["met"]
    assert "not_run" in goal_rows(good, 4.0)[case]["2"]


def test_the_table_says_goal_reached_missed_and_not_run() -> None:
    from readme import _native_table

    rows = list(goal_rows(2.5, 4.0).values())
    kept = {"environment": {"cpu": "a CPU", "cores": 2}, "figures": {"rows": rows}}
    lines = _native_table(kept).splitlines()
    assert "| fp32, batch 1, 256 MiB | ≥ 1.90 × | 1.60 × (missed) | not run |" in lines
    first = "| open (size check) to first output, 256 MiB | ≤ 60 ms | 60 ms | not run |"
    assert first in lines
