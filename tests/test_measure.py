"""Contenders take fair turns; every call counts; who cannot run is a row that says why."""

from __future__ import annotations

import io
import math

import handmade
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiedexport import candidates
from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.measure import bench, entrants, turns
from tiedexport.progress import Progress, Task
from tiedexport.results import Availability
from tiedexport.results.bench import WarmUp


class Scripted:
    """A contender on a synthetic clock: each call takes `call_s`, with an outlier now and then."""

    def __init__(self, name: str, call_s: float, log: list[tuple[str, int]], fails: str = ""):
        self.name, self.call_s, self.log, self.fails = name, call_s, log, fails
        self.closed = False

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        if self.fails == "prepare":
            raise RuntimeFailedError("batch not in the profile", got=batch)
        return WarmUp(self.call_s, warmup_s, 2)

    def take_turn(self, calls: int) -> np.ndarray:
        if self.fails == "run":
            raise RuntimeFailedError("out of memory")
        self.log.append((self.name, calls))
        samples = np.full(calls, round(self.call_s * 1e9), np.int64)
        samples[-1] *= 10
        return samples

    def close(self) -> None:
        self.closed = True


class Row:
    remark, on_gpu = "", False

    def __init__(self, name: str, absent: bool):
        self.name, self.slow, self.packs = name, name == "reference", name.startswith("packs")
        self._found = Availability(not absent, "1.0", "no driver", "pip install it")

    def availability(self) -> Availability:
        return self._found


@pytest.fixture
def stage_set(monkeypatch, tmp_path):
    """Runtimes by name → seconds a call, or what goes wrong, in place of the machine's own."""
    log: list[tuple[str, int]] = []
    made: list[Scripted] = []

    def arrange(**speeds: float | str):
        def contender(bundle, runtime, precision, threads, memory, idle_s):
            speed = speeds[runtime]
            if speed == "open":
                raise RuntimeFailedError("bad graph")
            call_s, fails = (1e-3, speed) if isinstance(speed, str) else (speed, "")
            mode = " packed" if memory == "packed" else ""
            made.append(Scripted(f"{runtime} {precision}{mode}", call_s, log, fails))
            return made[-1]

        def choose(row, bundle, precision):
            return (None, "no engine") if speeds[row.name] == "refused" else (precision, "")

        rows = {name: Row(name, speed == "absent") for name, speed in speeds.items()}
        monkeypatch.setattr(candidates, "all_runtimes", lambda: rows)
        monkeypatch.setattr(candidates, "runtime_named", lambda name: rows[name])
        monkeypatch.setattr(candidates, "choose_precision", choose)
        monkeypatch.setattr(entrants, "SessionContender", contender)
        return handmade.bundle(tmp_path / "m.tied"), log, made

    return arrange


def by_row(result):
    return {(r.runtime, r.precision.value, r.stage, r.batch): r for r in result.latencies}


def test_every_runtime_precision_stage_and_batch_has_exactly_one_row(stage_set):
    bundle, _, made = stage_set(a=1e-4, b="absent", c="refused")
    result = bench(bundle, stage=("encode", "autoencoder"), batch=(1, 8), duration_s=0.1)
    assert len(by_row(result)) == len(result.latencies) == 3 * 2 * 2 * 2
    assert {r.status for r in result.latencies if r.runtime == "a"} == {"passed"}
    assert {r.reason for r in result.latencies if r.status == "not run"} == {
        "no driver; pip install it",
        "no engine",
    }
    assert all(contender.closed for contender in made)


def test_the_reference_loop_takes_a_turn_in_every_round_and_is_no_row(stage_set):
    bundle, _, _ = stage_set(a=1e-4, b=3e-4)
    result = bench(bundle, batch=(1, 8), duration_s=0.05)
    assert {row.runtime for row in result.latencies} == {"a", "b"}
    assert [(one.stage, one.batch) for one in result.references] == [
        ("autoencoder", 1),
        ("autoencoder", 8),
    ]
    for one in result.references:
        rounds = [len(row.rounds_ns) for row in result.latencies if row.batch == one.batch]
        assert len(one.rounds_ns) == max(rounds)
        assert min(one.rounds_ns) > 0


def test_what_is_named_twice_is_measured_once(stage_set):
    bundle, _, made = stage_set(a=1e-4)
    stages = ("encode", "encoder")
    result = bench(bundle, runtime=("a", "a"), stage=stages, batch=(8, 1, 8), duration_s=0.1)
    assert [(r.precision.value, r.stage, r.batch) for r in result.latencies] == [
        (precision, "encoder", batch) for batch in (8, 1) for precision in ("fp32", "fp16")
    ]
    assert len(made) == 2


def test_both_memory_modes_take_turns_where_a_runtime_has_two(stage_set):
    bundle, log, made = stage_set(plain=1e-4, packs=1e-4)
    result = bench(bundle, batch=(1,), duration_s=0.1, memory="both")
    assert [(r.runtime, r.precision.value, r.memory) for r in result.latencies] == [
        ("plain", "fp32", "shared"),
        ("plain", "fp16", "shared"),
        ("packs", "fp32", "shared"),
        ("packs", "fp32", "packed"),
        ("packs", "fp16", "shared"),
        ("packs", "fp16", "packed"),
    ]
    assert {r.status for r in result.latencies} == {"passed"}
    assert [name for name, _ in log[:6]] == [contender.name for contender in made]
    assert made[3].name == "packs fp32 packed"


@pytest.mark.parametrize("memory", ["shared", "packed"])
def test_one_memory_mode_is_that_of_every_row(stage_set, memory):
    bundle, _, made = stage_set(plain=1e-4, packs="open")
    result = bench(bundle, batch=(1,), duration_s=0.01, memory=memory)
    assert {row.memory for row in result.latencies} == {memory}
    assert {contender.name.endswith("packed") for contender in made} == {memory == "packed"}


@pytest.mark.parametrize("fault", ["open", "prepare", "run"])
def test_a_contender_that_fails_is_a_row_with_the_reason_and_the_others_go_on(stage_set, fault):
    bundle, _, _ = stage_set(good=1e-4, bad=fault)
    result = bench(bundle, batch=(1,), duration_s=0.1)
    good, bad = (by_row(result)[name, "fp32", "autoencoder", 1] for name in ("good", "bad"))
    assert good.status == "passed"
    assert bad.status == "failed"
    assert bad.reason
    assert bad.median_s is None


def test_contenders_alternate_and_get_turns_of_one_length(stage_set):
    bundle, log, _ = stage_set(fast=1e-4, slow=2e-2)
    bench(bundle, batch=(1,), duration_s=1.0)
    first_two_rounds = [name for name, _ in log[:8]]
    assert first_two_rounds[:4] == first_two_rounds[4:][::-1]
    assert len(set(first_two_rounds[:4])) == 4
    assert dict(log) == {"fast fp32": 201, "fast fp16": 201, "slow fp32": 2, "slow fp16": 2}


def test_a_turn_of_a_fast_contender_lasts_at_least_the_stated_minimum(stage_set):
    bundle, log, _ = stage_set(fast=1e-6)
    bench(bundle, batch=(1,), duration_s=0.02)
    assert {calls for _, calls in log} == {1 + round(turns.TURN_S / 1e-6)}


def test_a_long_measurement_has_longer_turns_not_more_than_can_be_kept(stage_set):
    bundle, log, _ = stage_set(fast=1e-3)
    result = bench(bundle, batch=(1,), duration_s=60.0)
    assert {calls for _, calls in log} == {151}
    rounds = {len(row.rounds_ns) for row in result.latencies}
    assert rounds == {len(log) // 2}
    assert turns.FEWEST_TURNS < max(rounds) <= turns.MOST_TURNS


def test_a_pause_before_each_call_counts_as_time_that_is_spent(stage_set):
    bundle, log, _ = stage_set(fast=1e-4)
    result = bench(bundle, batch=(1,), duration_s=1.0, idle_ms=10.0)
    assert {calls for _, calls in log} == {2}
    turn_s = 0.01 + 10 * 1e-4  # the last call of every turn is an outlier
    assert {len(row.rounds_ns) for row in result.latencies} == {math.ceil(1.0 / turn_s)}
    assert result.options["idleTime"] == 10.0


@pytest.mark.parametrize("call_s", [1e-4, 4e-3, 5e-2])
def test_what_others_left_in_the_caches_is_not_timed(monkeypatch, call_s):
    def take_turn(self, calls):
        return np.array([3.0, *[1.0] * (calls - 1)]) * call_s * 1e9

    monkeypatch.setattr(Scripted, "take_turn", take_turn)
    row = turns.Row("r", handmade.FP32, contender=Scripted("r", call_s, []))
    task = Task(100, lambda done, note: None, float("inf"))
    (latency,) = turns.heat([row], "autoencoder", 1, turns.Budget(0.0, 0.5, 1, (99,), 1), task)
    assert latency.max_s == pytest.approx(call_s)


def test_a_stall_of_one_ends_its_part_no_sooner_than_that_of_the_others(monkeypatch):
    def take_turn(self, calls):
        self.log.append((self.name, calls))
        stall_s = 0.9 if self.name == "unlucky" and len(self.log) < 3 else 0.0
        return np.full(calls, 1e6) + np.array([*[0.0] * (calls - 1), stall_s * 1e9])

    monkeypatch.setattr(Scripted, "take_turn", take_turn)
    log: list[tuple[str, int]] = []
    names = ("unlucky", "other")
    rows = [turns.Row(n, handmade.FP32, contender=Scripted(n, 1e-3, log)) for n in names]
    task = Task(100, lambda done, note: None, float("inf"))
    found = turns.heat(rows, "autoencoder", 1, turns.Budget(0.0, 1.0, 1, (99,), 1), task)
    assert [len(row.rounds_ns) for row in found] == [200, 200]
    assert found[0].max_s == pytest.approx(0.901)


@given(
    call_s=st.floats(1e-6, 0.5),
    duration_s=st.floats(0, 2),
    iterations=st.integers(1, 40),
)
@settings(deadline=None, max_examples=40)
def test_at_least_the_iterations_and_the_duration_are_timed_and_no_call_is_dropped(
    call_s, duration_s, iterations
):
    log: list[tuple[str, int]] = []
    row = turns.Row("r", handmade.FP32, contender=Scripted("r", call_s, log))
    budget = turns.Budget(0.0, duration_s, iterations, (50, 99), 1)
    task = Task(100, lambda done, note: None, float("inf"))
    (latency,) = turns.heat([row], "autoencoder", 4, budget, task)
    calls = sum(calls - (call_s <= turns.LONGEST_LED_S) for _, calls in log)
    assert latency.iterations == calls >= iterations
    assert latency.mean_s * calls >= duration_s * (1 - 1e-9)
    assert latency.max_s == pytest.approx(10 * round(call_s * 1e9) / 1e9)
    assert latency.min_s <= latency.median_s <= latency.percentiles_s["p99"] <= latency.max_s
    assert latency.throughput_per_s == pytest.approx(4 / latency.mean_s)


def test_the_reference_evaluator_is_measured_only_when_named(stage_set):
    bundle, _, _ = stage_set(quick=1e-4, reference=1e-3)
    unnamed = by_row(bench(bundle, batch=(1,), duration_s=0))
    assert "--runtime reference" in unnamed["reference", "fp32", "autoencoder", 1].reason
    named = bench(bundle, runtime=("reference",), batch=(1,), duration_s=0)
    assert {r.runtime for r in named.latencies} == {"reference"}
    assert {r.status for r in named.latencies} == {"passed"}


def test_progress_names_what_is_measured_and_ends_complete(stage_set, monkeypatch):
    monkeypatch.setattr("tiedexport.progress.LINE_INTERVAL_S", 0.0)
    bundle, _, _ = stage_set(a=1e-3)
    stream = io.StringIO()
    bench(bundle, batch=(1, 2), duration_s=0.1, progress=Progress(stream=stream))
    lines = stream.getvalue().splitlines()
    done = [int(line.split()[1].split("/")[0]) for line in lines]
    assert done == sorted(done)
    assert done[-1] == 200
    assert "autoencoder, batch 1" in lines[0]
    assert "autoencoder, batch 2" in lines[-1]


def test_the_result_tells_the_options_that_repeat_it(stage_set):
    bundle, _, _ = stage_set(a=1e-3)
    result = bench(bundle, batch=(1,), warmup_ms=0, duration_s=0.25, iterations=3)
    assert result.options == {"warmUp": 0, "duration": 0.25, "iterations": 3, "threads": 1}
    assert result.bundle == str(bundle.path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": ()},
        {"batch": (0,)},
        {"iterations": 0},
        {"duration_s": -1},
        {"warmup_ms": float("nan")},
        {"idle_ms": -1},
        {"percentile": (0,)},
        {"percentile": (100,)},
        {"threads": 0},
        {"runtime": ("nonesuch",)},
        {"memory": "half"},
    ],
)
def test_an_argument_out_of_range_is_refused_before_anything_is_measured(tmp_path, wrong):
    with pytest.raises(UsageError):
        bench(handmade.bundle(tmp_path / "m.tied"), **wrong)
