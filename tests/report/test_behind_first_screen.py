"""What stands behind the first screen: samples, codes, errors, and what bench found beside."""

from __future__ import annotations

import handmade
import msgspec
import numpy as np
import pytest

from tiedexport.report import samples_section, speed_section
from tiedexport.report.page import Chart, Reasons, Stack, Strip
from tiedexport.results import Reconstruction
from tiedexport.results.bench import Instability
from tiedexport.results.observation import Observation, Projection
from tiedexport.results.roofline import Placement, Roofline

FP32, FP16 = handmade.FP32, handmade.FP16


def pictures(value: int, count: int = 2) -> Reconstruction:
    shape = (count, handmade.SIDE, handmade.SIDE)
    pixels = np.full(shape, value, np.uint8)
    return Reconstruction("native", FP32, shape, pixels.tobytes())


def observation(projection: Projection | None) -> Observation:
    errors = (0.1, 0.4, 0.2)
    shown = (pictures(9, 9), pictures(100), pictures(110))
    whence = "three samples"
    return Observation("native", FP32, whence, errors, projection, *shown, handmade.ENVIRONMENT)


@pytest.mark.parametrize(
    ("largest", "factor"),
    [(1.0, 1), (0.6, 1), (0.5, 2), (0.11, 5), (0.1, 10), (0.004, 200), (0.0, 1)],
)
def test_differences_are_amplified_as_far_as_none_is_lost(largest, factor):
    difference = np.array([0.0, -largest])
    assert samples_section._amplification(difference) == factor
    assert factor * largest <= 1


def test_runtimes_whose_images_agree_share_a_row_and_others_have_their_own(tmp_path):
    bundle, verify = handmade.bundle(tmp_path / "m.tied"), handmade.verify_result()
    apart = msgspec.structs.replace(
        verify.reconstructions[0], runtime="far", pixels=bytes(4 * handmade.SIDE**2)
    )
    found = (*verify.reconstructions, apart)
    section = samples_section.pictures(
        bundle, msgspec.structs.replace(verify, reconstructions=found)
    )
    labels = [stack.blocks[0].label for stack in section.blocks]
    assert labels == [
        "Originals",
        "float64 reference",
        "onnxruntime fp32, torch fp16",
        "far fp32",
    ]
    assert all("amplified" in stack.blocks[1].label for stack in section.blocks[1:])
    assert "tiedexport verify does it" in samples_section.pictures(bundle, None).text


def test_codes_and_errors_are_shown_with_their_figures():
    projection = Projection(((0.0, 1.0), (1.0, 0.0), (2.0, 2.0)), (), (0.5, 0.25))
    found = observation(projection)
    chart, between = samples_section.latent(found).blocks
    assert isinstance(chart, Chart)
    assert isinstance(between, Strip)
    histogram, stack = samples_section.errors(found).blocks
    assert "3 samples in native fp32" in histogram.alt
    assert isinstance(stack, Stack)
    assert "0.400, 0.200" in stack.blocks[0].label
    assert "amplified 20 ×" in stack.blocks[2].label


def test_what_was_not_observed_says_why():
    for section in (samples_section.latent("no runtime"), samples_section.errors("no runtime")):
        assert section.text == "Not run: no runtime."
        assert section.blocks == ()
    assert "too few to be projected" in samples_section.latent(observation(None)).text


def placement(precision, batch, limit_s, stage="autoencoder") -> Placement:
    fields = dict.fromkeys(Placement.__struct_fields__, 1)
    fields |= {"runtime": "torch", "stage": stage, "precision": precision, "remark": ""}
    return Placement(**fields | {"batch": batch, "limit_s": limit_s})


def test_the_limit_of_a_precision_is_the_least_of_its_runtimes_at_that_stage():
    rows = (
        placement(FP32, 1, 3e-5),
        placement(FP32, 1, 2e-5),
        placement(FP16, 8, 1e-5),
        placement(FP32, 1, 1e-9, stage="encoder"),
    )
    result = msgspec.structs.replace(
        handmade.bench_result(), roofline=Roofline((), rows, None, 1.0)
    )
    limits = speed_section._limits(result, "autoencoder")
    assert limits == {"fp32": {1: 2e-5}, "fp16": {8: 1e-5}}
    assert "limit fp32" in speed_section.answer(result).blocks[0].alt
    assert speed_section._limits(handmade.bench_result(), "autoencoder") == {}


def test_the_answer_about_speed_compares_within_one_stage():
    result = handmade.bench_result()
    other = msgspec.structs.replace(
        handmade.latency("torch", FP32, 1, 1e-9), stage="decoder", throughput_per_s=1e12
    )
    more = msgspec.structs.replace(result, latencies=(other, *result.latencies))
    assert speed_section.answer(more) == speed_section.answer(result)


def test_doubts_and_what_was_not_measured_are_told_once_each():
    result = handmade.bench_result()
    noise = Instability("noise", 0.4, 0.1, "rounds vary by 40%")
    first = msgspec.structs.replace(result.latencies[0], warnings=(noise,))
    result = msgspec.structs.replace(
        result,
        latencies=(first, *result.latencies[1:]),
    )
    (reasons,) = (b for b in speed_section.section(result).blocks if isinstance(b, Reasons))
    told = {who: (status, why) for status, who, why in reasons.rows}
    assert told["noise"][0] == "unsteady"
    assert told["the limit of the machine"][1] == "tiedexport bench --roofline measures it"
    assert len(told) == len(reasons.rows)
