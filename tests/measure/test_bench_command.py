"""The command line of bench: its options reach the measurement, and mistakes are told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema
import msgspec
import pytest
from command_line import tiedexport

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--warmUp", "1", "--duration", "0.01", "--iterations", "3", "--batch", "2", "-q")
EXIT_DONE, EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_BAD_INPUT = 0, 1, 2, 4


def bench(folder: Path, *arguments: object, runtime: str = "onnxruntime"):
    return tiedexport(
        "bench", "model.tied", "--runtime", runtime, *QUICK, *arguments, cwd=folder
    )  # fmt: skip


def test_a_run_has_ratios_details_every_time_and_fits_its_schema(folder: Path, tmp_path: Path):
    times = tmp_path / "times.json"
    done = bench(
        folder, "--runtime", "torch", "--baseline", "onnxruntime", "--details", "--idleTime", "0.1",
        "--exportTimes", times, "--json", "bench.json",
    )  # fmt: skip
    assert done.returncode == EXIT_DONE, done.stderr
    assert "Latency: min = " in done.stdout
    assert "speed over onnxruntime fp32" in done.stdout
    schema = tiedexport("bench", "--json-schema", cwd=folder)
    assert schema.returncode == EXIT_DONE
    found = msgspec.json.decode((folder / "bench.json").read_bytes())
    jsonschema.validate(found, msgspec.json.decode(schema.stdout))
    assert found["options"]["idleTime"] == 0.1
    exported = msgspec.json.decode(times.read_bytes())["rows"]
    ran = [row for row in found["latencies"] if row["status"] == "passed"]
    assert [row["runtime"] for row in exported] == [row["runtime"] for row in ran]
    for one, row in zip(exported, ran, strict=True):
        calls = [ns for turn in one["turns_ns"] for ns in turn]
        assert len(calls) == row["iterations"]
        assert max(calls) / 1e9 == pytest.approx(row["max_s"])


def test_a_regression_against_an_earlier_result_exits_1(folder: Path, tmp_path: Path):
    assert bench(folder, "--json", tmp_path / "then.json").returncode == EXIT_DONE
    found = msgspec.json.decode((tmp_path / "then.json").read_bytes())
    for row in found["latencies"]:  # no machine is as fast as this one was
        row["rounds_ns"] = [1] * 30
    (tmp_path / "then.json").write_bytes(msgspec.json.encode(found))
    done = bench(folder, "--against", tmp_path / "then.json", "--duration", "0.3")
    assert done.returncode == EXIT_DONE, done.stderr
    # Long enough for independent rounds, also where a busy machine makes neighbours alike.
    again = ("--against", tmp_path / "then.json", "--duration", "1.5", "--max-regression", "50")
    failed = bench(folder, *again)
    assert failed.returncode == EXIT_CHECK_FAILED, failed.stderr
    assert "FAILED" in failed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--baseline", "abacus"), EXIT_USAGE, "abacus"),
        (("--baseline", "torch"), EXIT_USAGE, "--runtime torch"),
        (("--baseline", "onnxruntime/fp31"), EXIT_USAGE, "fp31"),
        (("--max-regression", "5"), EXIT_USAGE, "--against FILE"),
        (("--against", "absent.json"), EXIT_BAD_INPUT, "absent.json"),
        (("--against", "absent.json", "--max-regression", "-1"), EXIT_USAGE, "-1 %"),
        (("--against", "model.tied/manifest.json"), EXIT_BAD_INPUT, "no result of bench"),
        (("--idleTime", "inf"), EXIT_USAGE, "idleTime inf"),
        (("--exportTimes", "absent/times.json"), EXIT_USAGE, "no folder"),
        (("--exportTimes", "model.tied/golden.npz"), EXIT_USAGE, "overwrite"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(folder: Path, arguments, code, words):
    done = bench(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--baseline=torch", "--details", "--against=x.json"])
def test_what_does_not_go_with_the_acceptance_is_named(folder: Path, option: str):
    done = tiedexport("bench", "--acceptance", option, cwd=folder)
    assert done.returncode == EXIT_USAGE
    assert option.partition("=")[0] in done.stderr
