"""A checkpoint comes back as it was, and nothing in a hostile one is ever run."""

from __future__ import annotations

import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import handmade
import pytest
import torch
from conftest import MODELS, make_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiedexport.checkpoint import VERSION, Checkpoint, load_checkpoint, save_checkpoint
from tiedexport.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


def dense() -> Checkpoint:
    return make_checkpoint(*MODELS["dense"])


def payload(path: Path) -> dict[str, Any]:
    """The raw content of a good checkpoint, to be altered."""
    save_checkpoint(path, dense())
    return torch.load(path, weights_only=True)


def refused(path: Path, match: str) -> CheckpointError:
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value.where)
    return caught.value


# Round trip.


@pytest.mark.parametrize("name", MODELS)
def test_every_field_comes_back(name: str, path: Path):
    saved = dataclasses.replace(make_checkpoint(*MODELS[name]), training=handmade.training_record())
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.family == saved.family
    assert loaded.config == saved.config
    assert loaded.sample_shape == saved.sample_shape
    assert loaded.training == saved.training
    assert torch.equal(loaded.samples, saved.samples)
    assert list(loaded.state) == list(saved.state)
    for key, tensor in saved.state.items():
        assert torch.equal(loaded.state[key], tensor)
    x = saved.samples
    assert torch.equal(loaded.module()(x), saved.module()(x))


def test_a_module_shares_the_checkpoints_memory_and_is_ready_to_evaluate(path: Path):
    save_checkpoint(path, dense())
    loaded = load_checkpoint(path)
    module = loaded.module()
    assert not module.training
    for name, parameter in module.named_parameters():
        assert parameter.data_ptr() == loaded.state[name].data_ptr()
        assert not parameter.requires_grad


def test_saving_replaces_whole_and_a_failure_leaves_the_old_file(path: Path, monkeypatch):
    save_checkpoint(path, dense())
    before = path.read_bytes()

    def fail_halfway(payload: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, dense())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


# Hostile files.


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._trace), "w")


@pytest.mark.parametrize("place", ["whole", "training", "state", "samples"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(place: str, path: Path):
    trace = path.parent / "pwned"
    content = payload(path)
    torch.save(Hostile(trace) if place == "whole" else content | {place: Hostile(trace)}, path)
    error = refused(path, "refused")
    assert "nothing of the file was executed" in str(error.expected)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_and_nothing_runs(protocol: int, path: Path):
    trace = path.parent / "pwned"
    path.write_bytes(pickle.dumps(Hostile(trace), protocol))
    refused(path, "refused")
    assert not trace.exists()


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damage_anywhere_is_a_checkpoint_error_or_leaves_a_valid_checkpoint(
    data: st.DataObject, path: Path
):
    if not (original := path.with_suffix(".good")).exists():
        save_checkpoint(original, dense())
    content = bytearray(original.read_bytes())
    begin = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[begin:]
    else:
        content[begin] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = load_checkpoint(path)
    except CheckpointError:
        return
    assert loaded.module()(loaded.samples).shape == loaded.samples.shape


# Files of another kind.


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4", b"\x80\x04."])
def test_what_is_no_checkpoint_is_unreadable(content: bytes, path: Path):
    path.write_bytes(content)
    refused(path, "unreadable|refused")


def test_a_missing_file_comes_with_the_command_that_makes_one(path: Path):
    assert "tiedexport train" in str(refused(path, "no such checkpoint").hint)


def test_a_directory_is_no_checkpoint(tmp_path: Path):
    refused(tmp_path, "unreadable")


def test_a_state_dict_of_another_program_is_named_by_its_keys(path: Path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    assert "weight, bias" in str(refused(path, "not a checkpoint of tiedexport").got)


def test_a_bare_tensor_is_no_checkpoint(path: Path):
    torch.save(torch.zeros(3), path)
    assert refused(path, "not a checkpoint").got == "Tensor"


def test_a_newer_version_asks_for_an_upgrade(path: Path):
    torch.save(payload(path) | {"version": VERSION + 1}, path)
    error = refused(path, "another version")
    assert (error.got, error.expected) == (VERSION + 1, VERSION)
    assert "pip install --upgrade" in str(error.hint)


# Content that cannot be used.


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["layers.0.weight", "layers.1.decoder_bias"])
def test_weights_that_are_not_finite_are_named(bad: float, name: str, path: Path):
    content = payload(path)
    content["state"][name].view(-1)[3] = bad
    torch.save(content, path)
    assert name in str(refused(path, "not finite").where)


def _without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize(
    ("alter", "match"),
    [
        (lambda c: c | {"family": "transformer"}, "invalid checkpoint"),
        (lambda c: c | {"config": {"widths": [20]}}, "invalid checkpoint"),
        (lambda c: c | {"config": {"widths": "wide"}}, "invalid checkpoint"),
        (lambda c: c | {"config": None}, "invalid checkpoint"),
        (lambda c: _without(c, "samples"), "invalid checkpoint"),
        (lambda c: c | {"sample_shape": 20}, "invalid checkpoint"),
        (lambda c: c | {"training": {"epochs": 1}}, "invalid checkpoint"),
        (lambda c: c | {"state": None}, "invalid checkpoint"),
        (lambda c: c | {"samples": [[0.0] * 20]}, "not a float32 tensor"),
        (lambda c: c | {"samples": torch.zeros(4, 20).double()}, "not a float32 tensor"),
        (lambda c: c | {"samples": torch.full((4, 20), torch.nan)}, "not finite"),
        (lambda c: c | {"samples": torch.zeros(0, 20)}, "samples do not fit"),
        (lambda c: c | {"samples": torch.zeros(4, 21)}, "samples do not fit"),
        (lambda c: c | {"sample_shape": [3, 7]}, "samples do not fit"),
    ],
)
def test_content_that_does_not_fit_together_is_refused(alter, match: str, path: Path):
    torch.save(alter(payload(path)), path)
    refused(path, match)


@pytest.mark.parametrize(
    "alter",
    [
        lambda s: _without(s, "layers.0.weight"),
        lambda s: s | {"layers.2.weight": torch.zeros(3)},
        lambda s: s | {"layers.0.weight": torch.zeros(20, 13)},
    ],
    ids=["missing", "superfluous", "transposed"],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(alter, path: Path):
    content = payload(path)
    torch.save(content | {"state": alter(content["state"])}, path)
    with pytest.raises(CheckpointError, match=r"do not fit the model[^$]*layers\."):
        load_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_type_are_refused(dtype: torch.dtype, path: Path):
    content = payload(path)
    content["state"]["layers.0.weight"] = content["state"]["layers.0.weight"].to(dtype)
    torch.save(content, path)
    assert refused(path, "not a float32 tensor").got == dtype


@pytest.mark.parametrize("name", ["layers.0.weight", "samples"])
def test_a_sparse_tensor_is_refused(name: str, path: Path):
    content = payload(path)
    table = content if name == "samples" else content["state"]
    table[name] = table[name].to_sparse()
    torch.save(content, path)
    error = refused(path, "not a dense tensor")
    assert name in str(error.where)
    assert "sparse" in str(error.got)
