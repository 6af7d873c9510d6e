"""Polygraphy's files: what is written comes back, and what is no such file is a clear error."""

from __future__ import annotations

import base64
import io
import json
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polygraphy.comparator import RunResults
from polygraphy.json import load_json

from tiedexport import atomic
from tiedexport.errors import DataError
from tiedexport.saved_outputs import SavedRun, read_outputs, write_inputs, write_outputs
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
