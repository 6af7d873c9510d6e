"""What goes together, what does not, and what cannot be read."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch
from audited_things import BROKEN, HEALTHY, W
from command_line import tiedexport
from safetensors.numpy import save_file

from tiedexport.audit import audit
from tiedexport.errors import (
    EXIT_BAD_INPUT,
    EXIT_CHECK_FAILED,
    EXIT_DONE,
    EXIT_MISSING,
    EXIT_USAGE,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle


def touched(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).write_bytes(b"")
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "nothing to audit"),
        (["model.txt"], "cannot tell what this is"),
        (["model.pt2"], "tiedexport build"),
        (["model.plan"], "the plan beside what it was built from"),
        (["model.engine", "other.trt"], "which bytes are weights"),
    ],
)
def test_what_does_not_go_together_is_refused(names: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        audit(touched(tmp_path, *names))


def test_a_bundle_has_its_own_graphs(dense_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a bundle and other ONNX files"):
        audit([dense_bundle.path, *touched(tmp_path, "model.onnx")])
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="two bundles"):
        audit([dense_bundle.path, tmp_path / "other"])


def test_two_modules_are_two_audits() -> None:
    with pytest.raises(UsageError, match="two live modules"):
        audit(["five_ways:functional", "five_ways:parametrized"])


@pytest.mark.parametrize("shape", [(), (0,), (4, -1)])
def test_an_input_shape_is_of_an_item_of_a_module(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shape of an item"):
        audit(["five_ways:functional"], input_shape=shape)
    with pytest.raises(UsageError, match="without a live module"):
        audit(touched(tmp_path, "model.onnx"), input_shape=shape)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.onnx", None, "no such file"),
        ("absent.safetensors", None, "no such file"),
        ("noise.onnx", b"noise", "not an ONNX file"),
        ("noise.safetensors", b"noise", "unreadable weights"),
        ("noise.pt", b"noise", "not a checkpoint, or damaged"),
        ("empty.pt", b"", "checkpoint"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    name: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = tiedexport("audit", name, cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert words in done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("payload", [{}, {"epoch": 3, "names": ["a"]}, {"w": torch.empty(0)}])
def test_a_checkpoint_without_a_tensor_is_none(payload: dict[str, object], tmp_path: Path) -> None:
    torch.save(payload, tmp_path / "model.pt")
    done = tiedexport("audit", "model.pt", cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert "no tensor in it" in done.stderr


def test_a_checkpoint_in_the_old_format_has_places_without_offsets(tmp_path: Path) -> None:
    weights = torch.from_numpy(W.copy())
    state = {"a": weights, "b": weights.t().contiguous(), "c": weights}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (row,) = [row for row in audit([tmp_path / "old.pt"]).stages if row.name == "checkpoint"]
    (tie,) = row.ties
    assert [(copy.form, copy.offset) for copy in tie.copies] == [
        ("original", None),
        ("transposed", None),
    ]
    assert tie.copies[0].uses == ("a", "c")
    assert {copy.file for copy in tie.copies} == {str(tmp_path / "old.pt")}


def test_types_that_numpy_lacks_and_nobody_knows_are_read_by_their_bytes(tmp_path: Path) -> None:
    entries = {"a": [0, 64], "b": [64, 128]}
    data = np.random.default_rng(0).integers(0, 256, 64, np.uint8).tobytes()
    for dtype, shape in (("BF16", [32]), ("F8_E4M3", [64]), ("F8_E8M0", [64])):
        header = {
            n: {"dtype": dtype, "shape": shape, "data_offsets": o} for n, o in entries.items()
        }
        encoded = msgspec.json.encode(header)
        file = tmp_path / f"{dtype}.safetensors"
        file.write_bytes(len(encoded).to_bytes(8, "little") + encoded + 2 * data)
        (row,) = [row for row in audit([file]).stages if row.name == "checkpoint"]
        assert [len(tie.copies) for tie in row.ties] == [2]


def test_the_command_fails_on_copies_only_where_asked_to(tmp_path: Path) -> None:
    _, build = BROKEN["safetensors_with_a_stored_transpose"]
    (thing,) = build(tmp_path)
    done = tiedexport("audit", thing, "--json", "audit.json", cwd=tmp_path)
    assert done.returncode == EXIT_DONE
    assert "transposed" in done.stdout
    written = msgspec.json.decode((tmp_path / "audit.json").read_bytes())
    assert (written["passed"], written["schema"]) == (False, 1)
    done = tiedexport("audit", thing, "--fail-on-copies", cwd=tmp_path)
    assert done.returncode == EXIT_CHECK_FAILED
    (thing,) = HEALTHY["checkpoint_of_ours"](tmp_path)
    assert tiedexport("audit", thing, "--fail-on-copies", cwd=tmp_path).returncode == EXIT_DONE


def test_the_command_tells_no_copy_from_could_not_tell(tmp_path: Path) -> None:
    (tmp_path / "opaque.plan").write_bytes(np.random.default_rng(1).bytes(4 << 20))
    save_file({"w": W}, tmp_path / "w.safetensors")
    things = ["opaque.plan", "w.safetensors", "--json", "audit.json"]
    done = tiedexport("audit", *things, "--fail-on-copies", cwd=tmp_path)
    assert done.returncode == EXIT_MISSING
    assert "Does the tie hold? not proven: engine plan could not tell" in done.stdout
    assert not msgspec.json.decode((tmp_path / "audit.json").read_bytes())["passed"]
    assert tiedexport("audit", *things, cwd=tmp_path).returncode == EXIT_DONE


def test_the_command_tells_no_copy_from_nothing_measured(tmp_path: Path) -> None:
    (tmp_path / "empty_of_mine.py").write_text("from torch.nn import ReLU\n")
    thing = "empty_of_mine:ReLU"
    done = tiedexport("audit", thing, "--fail-on-copies", cwd=tmp_path)
    assert done.returncode == EXIT_MISSING
    assert "nothing could be measured here" in done.stdout
    assert tiedexport("audit", thing, cwd=tmp_path).returncode == EXIT_DONE


def test_a_wrong_input_shape_is_a_usage_error(tmp_path: Path) -> None:
    done = tiedexport("audit", "five_ways:functional", "--input-shape", "x", cwd=tmp_path)
    assert done.returncode == EXIT_USAGE


def without(*packages: str, things: list[str]) -> subprocess.CompletedProcess[str]:
    """The audit in a process that lacks some packages."""
    blocked = ", ".join(f"{package!r}: None" for package in packages)
    code = (
        f"import sys; sys.modules.update({{{blocked}}}); "
        "from tiedexport.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "audit", "-q", *things]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_deployment_target_audits_bundles_and_safetensors(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    save_file({"weight": W}, tmp_path / "w.safetensors")
    authoring = ("torch", "onnx", "onnx_ir", "onnxscript")
    done = without(*authoring, things=[str(dense_bundle.path), str(tmp_path / "w.safetensors")])
    assert done.returncode == EXIT_DONE, done.stderr
    assert "is not installed; pip install" in " ".join(done.stdout.split())
