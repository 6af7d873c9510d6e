"""What cannot be built is refused in plain words that say what to do instead."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import five_ways
import numpy as np
import pytest
import stranger_modules
import torch
from command_line import tiedexport
from conftest import MODELS, make_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import (
    BadInputError,
    CheckpointError,
    GraphError,
    TiedExportError,
    UsageError,
)
from tiedexport.export import build, plan

if TYPE_CHECKING:
    from torch import nn

pytestmark = pytest.mark.usefixtures("quick_export")

HERE = Path(__file__).parent
BATCH = ({0: torch.export.Dim("batch")},)


def refused(model: Any, kind: type[TiedExportError], match: str, **options: Any) -> TiedExportError:
    with pytest.raises(kind, match=match) as caught:
        plan(model, "unwritten.tied", target=(), **options)
    return caught.value


@pytest.mark.parametrize(
    ("name", "shape", "what", "got"),
    [
        ("Normalised", 9, "an operator that no layer describes", "LayerNormalization"),
        ("Residual", 9, "an operator that no layer describes", "Add"),
        ("Attention", 9, "an operator that no layer describes", "Transpose"),
        ("Grouped", (2, 5, 5), "an attribute that no layer describes", "2"),
        ("Lines", (2, 5), "a convolution over other than two axes", "3"),
        ("Sequence", (4, 9), "an operator that no layer describes", "MatMul"),
    ],
)
def test_what_is_no_chain_of_layers_names_the_node_and_the_way_out(name, shape, what, got):
    error = refused(getattr(stranger_modules, name)(), GraphError, what, input_shape=shape)
    assert got in str(error.got)
    assert error.where
    if what.startswith("an operator"):
        assert "tiedexport retie" in str(error.hint)


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("OtherForward", GraphError, "something else than decode"),
        ("Classifier", GraphError, "not an autoencoder"),
        ("Weightless", GraphError, "the encoder has no weight"),
        ("Branching", GraphError, "torch could not export"),
        ("Pair", BadInputError, "the model failed"),
        ("LanguageModel", BadInputError, "the model failed"),
        ("half", CheckpointError, "not a float32 tensor"),
        ("double", CheckpointError, "not a float32 tensor"),
        ("infinite", CheckpointError, "not finite"),
        ("meta", CheckpointError, "not a dense tensor"),
        ("empty", BadInputError, "no parameters"),
    ],
)
def test_modules_that_cannot_be_used_are_refused(name, kind, match):
    refused(getattr(stranger_modules, name)(), kind, match, input_shape=9)


def test_an_input_shape_that_does_not_fit_shows_the_modules_own_words():
    error = refused(stranger_modules.instance, BadInputError, "the model failed", input_shape=8)
    assert "mat1 and mat2" in str(error.got)
    assert "--input-shape" in str(error.hint)


def test_without_an_input_shape_the_option_is_named():
    error = refused(stranger_modules.instance, UsageError, "shape of the module's inputs")
    assert "--input-shape 784" in str(error.hint)


@pytest.mark.parametrize("shape", [0, (), (3, -1)])
def test_a_shape_without_elements_is_refused(shape):
    refused(stranger_modules.instance, UsageError, "no shape of an input", input_shape=shape)


# By name.


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        ("absent_package:f", 2, "absent_package"),
        ("stranger_modules:absent", 2, "absent"),
        ("stranger_modules:raising", 4, "no such file: weights.pt"),
        ("stranger_modules:annotations", 4, "_Feature"),
    ],
)
def test_a_reference_that_makes_no_module_is_refused_by_exit_code(reference, code, words):
    done = tiedexport("build", reference, "--input-shape", "9", cwd=HERE)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["Autoencoder", "instance"])
def test_a_class_or_an_instance_of_the_current_folder_is_planned_with_its_notes(name):
    done = tiedexport(
        "build", f"stranger_modules:{name}", "--input-shape", "9", "--dry-run", cwd=HERE
    )
    assert done.returncode == 0, done.stderr
    for words in ("no weight is tied", "random in [0, 1)", f"write   {name}.tied"):
        assert words in done.stdout


# Programs.


def program_of(module: nn.Module, path: Path, *inputs: torch.Tensor, **options: Any) -> Path:
    torch.export.save(torch.export.export(module.eval(), inputs, **options), path)
    return path


def test_a_static_batch_comes_with_the_line_that_exports_a_dynamic_one(tmp_path: Path):
    path = program_of(stranger_modules.Autoencoder(), tmp_path / "m.pt2", torch.zeros(2, 9))
    error = refused(path, BadInputError, "batches of one size only")
    assert 'torch.export.Dim("batch")' in str(error.hint)
    names = {"model": stranger_modules.Autoencoder(), "torch": torch}
    line = str(error.hint).replace("…", "9")
    torch.export.save(eval(line, names), path)
    error = refused(path, GraphError, "the code cannot be found")
    assert "(reconstruction, code)" in str(error.hint)


def test_programs_of_tokens_of_two_inputs_and_of_other_dynamic_axes_are_refused(tmp_path: Path):
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    path = program_of(
        stranger_modules.LanguageModel(), tmp_path / "lm.pt2", tokens, dynamic_shapes=BATCH
    )
    error = refused(path, BadInputError, "other than one batch of float32")
    assert "int64" in str(error.got)
    assert "tiedexport retie" in str(error.hint)
    free = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("width")},)
    path = program_of(
        torch.nn.Conv2d(1, 1, 3, padding=1), tmp_path / "c.pt2", torch.zeros(2, 1, 5, 6),
        dynamic_shapes=free,
    )  # fmt: skip
    refused(path, BadInputError, "more than the batch axis")


def test_a_program_in_half_precision_is_refused(tmp_path: Path):
    x = torch.zeros(2, 9, dtype=torch.float16)
    path = program_of(stranger_modules.half(), tmp_path / "m.pt2", x, dynamic_shapes=BATCH)
    assert "float16" in str(refused(path, BadInputError, "float32").got)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4"])
def test_a_damaged_program_is_unreadable(content: bytes, tmp_path: Path):
    (tmp_path / "m.pt2").write_bytes(content)
    refused(tmp_path / "m.pt2", CheckpointError, "unreadable program")


def test_a_missing_program_is_missing(tmp_path: Path):
    refused(tmp_path / "m.pt2", CheckpointError, "no such program")


# Options that do not go together.


@pytest.mark.parametrize(
    "option", [{"family": "autoencoder"}, {"settings": {"activation": "tanh"}}]
)
def test_what_a_module_tells_itself_is_no_option(option):
    error = refused(stranger_modules.instance, UsageError, "tells this itself", **option)
    assert error.got in ("--family", "--set")


@pytest.mark.parametrize("option", [{"input_shape": 20}, {"samples": "x.npy"}, {"family": "conv"}])
def test_a_checkpoint_tells_everything_itself(option, tmp_path: Path):
    save_checkpoint(tmp_path / "m.pt", make_checkpoint(*MODELS["dense"]))
    refused(tmp_path / "m.pt", UsageError, "tells this itself", **option)


def test_a_module_needs_a_place_to_be_built_to():
    with pytest.raises(UsageError, match="no place beside it"):
        build(stranger_modules.instance, input_shape=9)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((4, 8), np.float32), "no inputs of the model"),
        (np.zeros((4, 9), np.int64), "no inputs of the model"),
        (np.zeros((0, 9), np.float32), "no inputs of the model"),
        (np.float32(3.0), "no inputs of the model"),
        (np.full((4, 9), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_samples_that_the_model_cannot_take_are_refused(array, match, tmp_path: Path):
    np.save(tmp_path / "x.npy", array)
    options = {"input_shape": 9, "samples": tmp_path / "x.npy"}
    refused(stranger_modules.instance, BadInputError, match, **options)


@settings(
    max_examples=8,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_damage_anywhere_in_a_program_is_an_error_of_ours_or_leaves_a_program(
    place: float, flip: int, tmp_path: Path
):
    """A flip of nothing cuts the file off."""
    if not (good := tmp_path / "good").exists():
        tied = five_ways.functional()
        program_of(tied, good, torch.zeros(2, 20), dynamic_shapes=BATCH)
    content = bytearray(good.read_bytes())
    begin = int(place * len(content))
    if flip:
        content[begin] ^= flip
    else:
        del content[begin:]
    (tmp_path / "m.pt2").write_bytes(content)
    with contextlib.suppress(TiedExportError):
        assert "export" in plan(tmp_path / "m.pt2", target=())
