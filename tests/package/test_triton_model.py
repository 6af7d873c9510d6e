"""A stage in Triton's python backend, with a double of what the backend gives it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from google.protobuf import json_format
from triton_schema import config_of

from tiedexport.errors import BundleError, UsageError
from tiedexport.package import package
from tiedexport.package.triton_model import TritonPythonModel
from tiedexport.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiedexport.bundle import Bundle


@dataclass
class Tensor:
    """A named array, which goes in and out by DLPack."""

    name: str
    array: np.ndarray

    @staticmethod
    def from_dlpack(name: str, lent: Any) -> Tensor:
        assert lent.__dlpack_device__() == (1, 0)
        return Tensor(name, np.from_dlpack(lent))

    def __dlpack__(self, **options: Any) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@dataclass
class InferenceResponse:
    """What a request gets."""

    output_tensors: list[Tensor]
    error: Exception | None = None


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The server's log, and the double in place."""
    lines: list[str] = []
    double = SimpleNamespace(
        Tensor=Tensor,
        InferenceResponse=InferenceResponse,
        TritonError=RuntimeError,
        Logger=SimpleNamespace(log_info=lines.append),
        get_input_tensor_by_name=lambda request, name: Tensor(name, request[name]),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", double)
    return lines


def arguments(repository: Path, stage: str) -> dict[str, str]:
    """What the backend tells a model of itself."""
    folder = repository / f"m_{stage}"
    config = json_format.MessageToDict(config_of(folder), preserving_proto_field_name=True)
    return {
        "model_config": json.dumps(config),
        "model_repository": str(folder),
        "model_version": "1",
    }


@pytest.fixture
def model(dense_bundle: Bundle, tmp_path: Path, log: list[str]) -> Iterator[TritonPythonModel]:
    """The autoencoder of a repository, opened."""
    package(dense_bundle, tmp_path, name="m", precision="fp32")
    opened = TritonPythonModel()
    opened.initialize(arguments(tmp_path, "autoencoder"))
    yield opened
    opened.finalize()


def test_every_request_of_a_batch_gets_its_own_rows(
    model: TritonPythonModel, dense_bundle: Bundle
) -> None:
    x = np.random.default_rng(0).random((6, 20)).astype(np.float32)
    answers = model.execute([{"input": part} for part in (x[:1], x[1:4], x[4:])])
    with open_session(dense_bundle, precision="fp32", threads=1) as session:
        expected = session.reconstruct(x)
    outputs = [answer.output_tensors[0] for answer in answers]
    assert [answer.error for answer in answers] == [None, None, None]
    assert [len(output.array) for output in outputs] == [1, 3, 2]
    np.testing.assert_array_equal(np.concatenate([o.array for o in outputs]), expected)


def test_a_lone_request_is_computed_where_it_lies(
    model: TritonPythonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "run", lambda self, stage, x: x)
    given = np.zeros((2, 20), np.float32)
    (answer,) = model.execute([{"input": given}])
    assert np.shares_memory(answer.output_tensors[0].array, given)


def test_what_a_session_refuses_is_an_error_of_each_request(model: TritonPythonModel) -> None:
    answers = model.execute([{"input": np.zeros((2, 5), np.float32)}] * 2)
    assert ["input" in str(answer.error) for answer in answers] == [True, True]
    assert [answer.output_tensors for answer in answers] == [[], []]


def test_the_log_says_what_runs(model: TritonPythonModel, log: list[str]) -> None:
    assert "autoencoder" in log[0]
    assert "fp32" in log[0]


def test_a_closed_model_computes_nothing(model: TritonPythonModel) -> None:
    model.finalize()
    (answer,) = model.execute([{"input": np.zeros((1, 20), np.float32)}])
    assert "closed" in str(answer.error)


@pytest.mark.parametrize("check", ["hash", "size"])
def test_an_altered_weight_is_found_where_hashes_are_checked(
    dense_bundle: Bundle, tmp_path: Path, log: list[str], check: str
) -> None:
    package(dense_bundle, tmp_path, name="m", precision="fp32", check=check)
    (weights,) = tmp_path.rglob("weights.fp32.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    opened = TritonPythonModel()
    if check == "size":
        opened.initialize(arguments(tmp_path, "encoder"))
        opened.finalize()
        return
    with pytest.raises(BundleError, match="was altered"):
        opened.initialize(arguments(tmp_path, "encoder"))


def test_a_runtime_is_taken_by_name(dense_bundle: Bundle, tmp_path: Path, log: list[str]) -> None:
    package(dense_bundle, tmp_path, name="m", runtime="onnxruntime", precision="fp32")
    opened = TritonPythonModel()
    opened.initialize(arguments(tmp_path, "encoder"))
    opened.finalize()
    assert "onnxruntime fp32" in log[0]


def test_a_precision_is_one(dense_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one precision"):
        package(dense_bundle, tmp_path, precision="fp32,fp16")
