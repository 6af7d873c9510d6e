"""Polygraphy's files: what is written comes back, and what is no such file is a clear error."""

from __future__ import annotations

import base64
import io
import json
import pickle
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from command_line import tiedexport
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import structs
from polygraphy.comparator import RunResults
from polygraphy.json import load_json

from tiedexport import atomic, layerwise
from tiedexport import verify as module
from tiedexport.errors import DataError, MissingRuntimeError, UsageError
from tiedexport.runtimes import runtime_named
from tiedexport.saved_outputs import SavedRun, read_outputs, write_inputs, write_outputs
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.bundle import Bundle

FP32, FP16, BF16 = Precision
ARRAYS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(-1e4, 1e4, width=16),
)
RUNS = st.builds(
    SavedRun,
    runtime=st.from_regex(r"[a-z]+[-_a-z0-9]*", fullmatch=True),
    precision=st.sampled_from(Precision),
    outputs=st.dictionaries(st.text(min_size=1, max_size=9), ARRAYS, min_size=1, max_size=3),
    remark=st.sampled_from(["", "network, simulated", "a (b) c"]),
)


def golden_run(bundle: Bundle, stage: str, precision: Precision) -> dict[str, np.ndarray]:
    """The right output of every layer of a stage."""
    rows = layerwise.expected(bundle, bundle.manifest.stage(stage), precision, precision)
    return {row.name: row.golden.astype(np.float32) for row in rows}


# There and back.


@given(runs=st.lists(RUNS, min_size=1, max_size=3, unique_by=lambda run: run.name))
def test_what_is_written_comes_back(tmp_path_factory, runs: list[SavedRun]) -> None:
    file = tmp_path_factory.mktemp("saved") / "o.json"
    write_outputs(file, runs)
    found = read_outputs(file)
    assert [run.name for run in found] == [run.name for run in runs]
    for run, back in zip(runs, found, strict=True):
        assert (back.runtime, back.precision, back.remark) == (
            run.runtime,
            run.precision,
            run.remark,
        )
        assert list(back.outputs) == list(run.outputs)
        for name, array in run.outputs.items():
            np.testing.assert_array_equal(back.outputs[name], array, strict=True)


def test_bf16_is_written_as_the_same_numbers_in_float32(tmp_path: Path) -> None:
    array = np.array([[1.5, -3.0, 2.0**-130]], BF16.dtype)
    write_outputs(tmp_path / "o.json", [SavedRun("torch", BF16, {"y": array})])
    (run,) = read_outputs(tmp_path / "o.json")
    assert run.outputs["y"].dtype == np.float32
    np.testing.assert_array_equal(run.outputs["y"], array.astype(np.float32))


@pytest.mark.parametrize("name", ["onnxrt-runner-N0-11/22/26-08:00:00", "fp16", "torch fp8", ""])
def test_a_runner_of_another_name_is_of_no_known_precision(name: str, tmp_path: Path) -> None:
    results = RunResults()
    results.add([{"y": np.ones(3)}], runner_name=name)
    results.save(str(tmp_path / "o.json"))
    (run,) = read_outputs(tmp_path / "o.json")
    assert (run.runtime, run.precision, run.remark, run.name) == (name, None, "", name)


def test_inputs_are_one_call_by_name(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 4), np.float32)
    write_inputs(tmp_path / "i.json", {"x": x})
    (feeds,) = load_json(str(tmp_path / "i.json"))
    np.testing.assert_array_equal(feeds["x"], x, strict=True)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "o.json"
    file.write_text("{}")
    monkeypatch.setattr(atomic.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_outputs(file, [SavedRun("torch", FP32, {"y": np.ones(2)})])
    assert [path.name for path in tmp_path.iterdir()] == ["o.json"]
    assert file.read_text() == "{}"


# What is no such file.


def results_of(*runs: tuple[str, list[dict[str, object]]]) -> bytes:
    results = RunResults()
    for name, iterations in runs:
        results.add(iterations, runner_name=name)
    return str(results.to_json()).encode()


SPRUNG: list[str] = []
"""What was unpickled."""


class Trap:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (SPRUNG.append, ("unpickled",))


def of_objects() -> bytes:
    """A good file but for the bytes of its array, which numpy would have to unpickle."""
    file = io.BytesIO()
    np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
    fields = json.loads(results_of(("torch fp32", [{"y": np.ones(1)}])))
    fields["lst"][0][1][0]["outputs"]["y"]["values"]["array"] = base64.b64encode(
        file.getvalue()
    ).decode()
    return json.dumps(fields).encode()


GOOD = results_of(("torch fp32", [{"y": np.ones((2, 3), np.float32)}]))
OTHERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "pickle": (pickle.dumps(Trap()), "utf-8"),
    "torch tensor": (results_of(("a", [{"y": torch.ones(2)}])), "a pickled torch tensor"),
    "old torch tensor": (b'{"Tensor": "polygraphy_serialized_json_type"}', "pickled torch tensor"),
    "other JSON": (b'{"schema": 1}', "cannot be decoded into a RunResults"),
    "inputs": (b"[{}]", "cannot be decoded into a RunResults"),
    "deep": (b"[" * 100_000, "recursion"),
    "other type": (GOOD.replace(b'"ndarray"', b'"abacus"'), "abacus"),
    "no list": (b'{"lst": 3, "polygraphy_class": "RunResults"}', "not iterable"),
    "pickled objects": (of_objects(), ""),
    "no runner": (results_of(), "no runner"),
    "two calls": (results_of(("a", [{"y": np.ones(2)}] * 2)), "2 calls"),
    "words": (results_of(("a", [{"y": np.array(["one"])}])), "no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_a_clear_error_and_nothing_is_unpickled(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = OTHERS[name]
    (tmp_path / "o.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_outputs(tmp_path / "o.json")
    assert words in str(caught.value)
    assert "o.json" in str(caught.value)
    assert capsys.readouterr() == ("", "")
    assert SPRUNG == []


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_outputs(tmp_path / "o.json")


@given(st.data())
def test_a_truncated_file_is_a_clear_error(tmp_path_factory, data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("cut") / "o.json"
    file.write_bytes(GOOD[: data.draw(st.integers(0, len(GOOD) - 1))])
    with pytest.raises(DataError):
        read_outputs(file)


@pytest.mark.parametrize("option", ["save_inputs", "save_outputs", "load_outputs"])
def test_without_polygraphy_it_says_what_to_install_before_anything_runs(
    dense_bundle: Bundle, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy.comparator", None)
    monkeypatch.setattr(module, "open_session", None)
    with pytest.raises(MissingRuntimeError, match="pip install polygraphy"):
        verify(dense_bundle, **{option: tmp_path / "o.json"})
    assert list(tmp_path.iterdir()) == []


# In `verify`.


def saved(path: Path, runner: str, outputs: dict[str, np.ndarray]) -> Path:
    path.write_bytes(results_of((runner, [outputs])))
    return path


@pytest.mark.parametrize(
    ("runner", "asked", "precision", "accumulation"),
    [
        ("onnxruntime fp16", "", FP16, FP32),
        ("somebody's fp16", "", FP16, FP16),
        ("a stranger", "", FP32, FP32),
        ("a stranger", "bf16", BF16, BF16),
        ("a stranger", "fp32,fp16", FP32, FP32),
    ],
)
def test_loaded_outputs_are_judged_by_what_their_runner_says(
    dense_bundle: Bundle, tmp_path: Path, runner, asked, precision, accumulation
) -> None:
    file = saved(tmp_path / "o.json", runner, golden_run(dense_bundle, "autoencoder", FP32))
    result = verify(
        dense_bundle, runtime=["torch"], precision=asked, layers=True, load_outputs=file
    )
    assert result.passed
    (row,) = (row for row in result.comparisons if row.remark == "from o.json")
    assert row.runtime == runner.removesuffix(" fp16")
    assert (row.stage, row.precision, row.accumulation) == (
        "autoencoder",
        precision,
        accumulation,
    )
    names = [layer.output for layer in dense_bundle.manifest.stage("autoencoder").layers]
    assert [row.layer for row in result.layers if row.remark == "from o.json"] == names


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda y: y + 1, "outputs beyond their bound"),
        (lambda y: y[:, :-1], "output of shape"),
        (lambda y: y * np.float32("nan"), "not finite"),
    ],
)
def test_loaded_outputs_that_are_wrong_fail(
    dense_bundle: Bundle, tmp_path: Path, spoil: Callable, words: str
) -> None:
    outputs = golden_run(dense_bundle, "encoder", FP32)
    file = saved(tmp_path / "o.json", "torch fp32", outputs | {"code": spoil(outputs["code"])})
    result = verify(
        dense_bundle, runtime=["torch"], stage=["encoder"], layers=True, load_outputs=file
    )
    assert result.failed
    (row,) = (row for row in result.comparisons if row.status == "failed")
    assert (row.remark, words in row.reason) == ("from o.json", True)
    assert [(row.layer, row.remark) for row in result.strays] == [("code", "from o.json")]


def test_loaded_outputs_of_another_stage_are_an_error_that_says_which(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    outputs = {"code": golden_run(dense_bundle, "encoder", FP32)["code"]}
    file = saved(tmp_path / "o.json", "torch fp32", outputs)
    with pytest.raises(DataError, match="--stage encoder") as caught:
        verify(dense_bundle, runtime=["torch"], load_outputs=file)
    assert (caught.value.got, caught.value.expected) == ("code", "reconstruction")


def test_a_file_does_not_stand_in_for_a_runtime_that_is_required(
    dense_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "o.json"
    verify(dense_bundle, runtime=["torch"], precision="fp32", save_outputs=file)
    row = type(runtime_named("torch"))
    absent = structs.replace(runtime_named("torch").availability(), available=False, reason="gone")
    monkeypatch.setattr(row, "availability", lambda self: absent)
    result = verify(dense_bundle, runtime=["torch"], require=["torch"], load_outputs=file)
    assert result.ran == 1
    assert result.missing == ("torch",)
    assert not result.passed


@pytest.mark.parametrize("option", ["save_inputs", "save_outputs", "load_outputs"])
def test_several_stages_do_not_go_into_one_file(
    dense_bundle: Bundle, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_session", None)  # so that nothing can run before
    with pytest.raises(UsageError, match="several stages"):
        verify(dense_bundle, stage=["encoder", "decoder"], **{option: tmp_path / "i.json"})
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_over_no_input_and_over_no_bundle(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "o.json").write_bytes(GOOD)
    manifest = dense_bundle.path / "manifest.json"
    before = manifest.read_bytes()
    for option, place in (("--save-outputs", "o.json"), ("--save-outputs", manifest)):
        call = ("verify", dense_bundle.path, "--load-outputs", "o.json", option, place)
        done = tiedexport(*call, cwd=tmp_path)
        assert done.returncode == UsageError.exit_code, done.stderr
        assert "would overwrite" in done.stderr
    assert manifest.read_bytes() == before
    assert (tmp_path / "o.json").read_bytes() == GOOD
