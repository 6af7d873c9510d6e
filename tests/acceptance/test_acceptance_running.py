"""The command, and the whole run on a machine without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import needs_rtx

import tiedexport.acceptance as verb
from tiedexport import trt
from tiedexport.__main__ import main
from tiedexport.bundle import file_sha256
from tiedexport.errors import BundleError, UsageError
from tiedexport.results.acceptance import Check

torch.set_num_threads(1)

EXIT_DONE, EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_BAD_INPUT = 0, 1, 2, 3, 4
BENCH = Path(__file__).parents[2] / "bench"
no_gpu = pytest.mark.skipif(trt.driver().available, reason="this machine has a GPU")


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def sections(monkeypatch):
    """A function that makes the sections end in these verdicts."""

    def put(*statuses: str) -> None:
        def answering(status):
            return lambda job: iter([Check("it", status, "" if status == "passed" else "a reason")])

        rows = tuple((f"s{i}", "?", answering(status)) for i, status in enumerate(statuses))
        monkeypatch.setattr(verb, "SECTIONS", rows)

    return put


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("passed", "passed"), EXIT_DONE),
        (("passed", "failed"), EXIT_CHECK_FAILED),
        (("not run", "failed"), EXIT_CHECK_FAILED),
        (("passed", "not run"), EXIT_MISSING),
    ],
)
def test_the_exit_code_is_the_worst_of_the_verdicts(tmp_path, sections, capsys, statuses, code):
    sections(*statuses)
    assert exit_code("bench", "--acceptance", "-q", "-o", tmp_path / "found") == code
    printed = capsys.readouterr().out
    assert f"results: {tmp_path / 'found'}" in printed
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "acceptance.json",
        "acceptance.md",
    }


def test_json_on_standard_output_is_that_of_the_file(tmp_path, sections, capsys):
    sections("passed")
    assert exit_code("bench", "--acceptance", "-q", "-o", tmp_path, "--json", "-") == EXIT_DONE
    assert capsys.readouterr().out == (tmp_path / "acceptance.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--acceptance", "--runtime", "torch"), "--runtime does not go with --acceptance"),
        (("--acceptance", "--threads", "2"), "--threads does not go with --acceptance"),
        (("--acceptance", "--batch", "0"), "batch sizes must be positive"),
        (("--acceptance", "--duration", "-1"), "a measurement needs time"),
        (("-o", "somewhere", "x.tied"), "-o goes with --suite and --acceptance"),
        ((), "Missing argument 'NAME.TIED'"),
    ],
)
def test_contradictions_are_usage_errors(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert exit_code("bench", *arguments) == EXIT_USAGE
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_bundle_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BundleError):
        verb.acceptance(tmp_path / "no.tied", tmp_path / "found")
    with pytest.raises(UsageError):
        verb.acceptance(output=tmp_path / "found", batch=())
    assert not (tmp_path / "found").exists()


@no_gpu
@needs_rtx
def test_without_a_gpu_it_runs_to_its_end_and_says_so_everywhere(
    dense_bundle, tmp_path, quick_export
):
    files = [path for path in dense_bundle.path.rglob("*") if path.is_file()]
    before = {path: file_sha256(path) for path in files}
    result = verb.acceptance(dense_bundle.path, tmp_path)
    assert {path: file_sha256(path) for path in files} == before
    assert (result.finished, result.passed, result.failed) == (True, False, False)
    assert [section.name for section in result.sections] == [name for name, *_ in verb.SECTIONS]
    assert {section.status for section in result.sections} == {"not run"}
    built = next(section for section in result.sections if section.name == "builds")
    passed = [check.what for check in built.checks if check.status == "passed"]
    assert {f"tensorrt_rtx {mode} fp16" for mode in ("shared", "baked", "one-plan")} < set(passed)
    for section in result.sections:
        reasons = [row.reason for row in (*section.checks, *section.latencies)]
        assert any("no CUDA driver" in reason for reason in reasons), section
    assert json.loads((tmp_path / "acceptance.json").read_bytes())["device"] == ""


@pytest.mark.parametrize("given", [[], ["--output=mine"], ["-omine"]])
def test_the_script_is_the_command_with_a_place_for_its_results(
    monkeypatch, sections, tmp_path, given
):
    sections("passed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr("record.RESULTS", tmp_path)
    script = (BENCH / "gpu_acceptance.py").read_text()
    monkeypatch.setattr("sys.argv", ["gpu_acceptance.py", "-q", *given])
    with pytest.raises(SystemExit) as stop:
        exec(compile(script, "gpu_acceptance.py", "exec"), {"__name__": "__main__"})
    assert stop.value.code == EXIT_DONE
    (found,) = [tmp_path / "mine"] if given else (tmp_path / "gpu").iterdir()
    assert (tmp_path / "gpu").exists() == (not given)
    assert (found / "acceptance.json").is_file()
