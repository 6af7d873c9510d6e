"""What to deploy is the fastest that may be; every reason against it and every doubt is said."""

from __future__ import annotations

import handmade
import handmade_ties
import msgspec
import numpy as np
import pytest

from tiedexport.advice import advise
from tiedexport.results import BenchResult, VerifyResult
from tiedexport.results.bench import Instability

FP32, FP16 = handmade.FP32, handmade.FP16
STAGES = ("encoder", "decoder", "autoencoder")


def row(runtime, median_s, *, precision=FP32, memory="shared", batch=1, rounds=40, **more):
    noise = np.random.default_rng(len(runtime)).normal(0, 0.01, rounds)
    nanoseconds = tuple((1e9 * median_s * (1 + noise)).astype(int).tolist())
    made = handmade.latency(runtime, precision, batch, median_s)
    return msgspec.structs.replace(made, memory=memory, rounds_ns=nanoseconds, **more)


def bench(*rows) -> BenchResult:
    return BenchResult("m.tied", rows, handmade.ENVIRONMENT, 1.0)


def verified(*runtimes, error=0.5, precision=FP32) -> VerifyResult:
    rows = [handmade.comparison(r, s, precision, error) for r in runtimes for s in STAGES]
    return VerifyResult("m.tied", tuple(rows), (), (), handmade.ENVIRONMENT, 1.0)


def both(one: VerifyResult, other: VerifyResult) -> VerifyResult:
    rows = one.comparisons + other.comparisons
    return msgspec.structs.replace(one, comparisons=rows)


def told(measured, compared, audit=None, copies=lambda runtime, precision: None) -> str:
    return advise(measured, compared, audit, copies)


def test_the_fastest_at_the_smallest_batch_is_named_with_its_mode_and_time():
    rows = [row("slow", 9e-5), row("quick", 4e-5), row("slow", 1e-6, batch=8)]
    sentence = told(bench(*rows), verified("slow", "quick"))
    assert sentence.startswith("quick in fp32, memory shared, with 40.0 µs a call at batch 1")
    assert "the fastest of 2 whose numbers match and whose tie holds" in sentence
    assert "not shown to be slower" not in sentence
    assert sentence.endswith(".")


def test_one_that_the_interval_does_not_separate_is_named_beside_it():
    rows = [row("quick", 4e-5), row("near", 4.001e-5), row("far", 9e-5)]
    sentence = told(bench(*rows), verified("quick", "near", "far"))
    assert "the least median of 3 whose numbers match" in sentence
    assert "fastest" not in sentence
    assert "while near fp32 is not shown to be slower" in sentence
    assert "far" not in sentence


def test_doubts_about_its_figures_are_named():
    noise = Instability("noise", 0.4, 0.1, "rounds vary by 40%")
    sentence = told(bench(row("quick", 4e-5, warnings=(noise,))), verified("quick"))
    assert "(unsteady: noise)" in sentence
    assert "unsteady" not in told(bench(row("quick", 4e-5)), verified("quick"))


def test_with_too_few_rounds_nothing_is_said_of_chance():
    rows = [row("quick", 4e-5), row("far", 9e-5, rounds=3), row("old", 9e-5, rounds=0)]
    sentence = told(bench(*rows), verified("quick", "far", "old"))
    assert "too few rounds to tell chance from difference to far fp32 and old fp32" in sentence
    assert "not shown to be slower" not in sentence


@pytest.mark.parametrize(
    ("quick", "compared", "why"),
    [
        (row("quick", 1e-5, memory="packed"), verified("quick"), "packed memory"),
        (row("quick", 1e-5, remark="simulated"), verified("quick"), "simulated"),
        (row("quick", 1e-5), verified("quick", error=2.0), "numbers do not match"),
        (row("quick", 1e-5), verified("other"), "not verified"),
        (row("quick", 1e-5, precision=FP16), verified("quick"), "not verified"),
    ],
)
def test_what_is_faster_but_ruled_out_is_named_with_the_reason(quick, compared, why):
    sentence = told(bench(row("fit", 4e-5), quick), both(compared, verified("fit")))
    assert sentence.startswith("fit in fp32")
    assert "the only one" in sentence
    assert "with a smaller median, but ruled out: quick" in sentence
    assert why in sentence


def test_a_runtime_that_stores_weights_again_is_ruled_out():
    rows, compared = bench(row("fit", 4e-5), row("quick", 1e-5)), verified("fit", "quick")
    sentence = told(rows, compared, copies=lambda who, _: "it folds" if who == "quick" else None)
    assert sentence.startswith("fit in fp32")
    assert "it folds" in sentence
    seen = handmade_ties.stage("process memory", "copies", subject="quick fp32 memory=shared")
    sentence = told(rows, compared, handmade_ties.audit(seen))
    assert sentence.startswith("fit in fp32")
    assert "seen to hold weights more than once" in sentence


def test_where_nothing_is_fit_nothing_is_named_for_deployment():
    sentence = told(bench(row("quick", 1e-5)), verified("quick", error=3.0))
    assert sentence == "nothing that was measured; quick fp32: its numbers do not match."


@pytest.mark.parametrize(
    ("measured", "compared", "words"),
    [
        (None, verified("a"), "tiedexport bench"),
        (bench(row("a", 1e-5)), None, "tiedexport verify"),
        (bench(), verified("a"), "nothing could be measured here"),
    ],
)
def test_without_results_the_command_is_told_that_makes_them(measured, compared, words):
    sentence = told(measured, compared)
    assert sentence.startswith("not known")
    assert words in sentence
