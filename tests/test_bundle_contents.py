"""What an opened bundle hands out: golden pairs and weights."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
from conftest import resign, sign_files

from tiedexport.bundle import (
    Bundle,
    map_safetensors,
    open_bundle,
    safetensors_layout,
)
from tiedexport.errors import BundleError
from tiedexport.spec import Precision


@pytest.fixture
def copied(dense_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense_bundle.path, tmp_path / "copy.tied"))


def test_damaged_golden_pairs_behind_a_size_check_are_a_bundle_error(copied: Path):
    size = (copied / "golden.npz").stat().st_size
    (copied / "golden.npz").write_bytes(b"PK\3\4".ljust(size, b"\0"))
    with pytest.raises(BundleError, match="unreadable golden pairs"):
        _ = open_bundle(copied, check="size").golden


@pytest.mark.parametrize("change", ["missing", "another shape", "empty"])
def test_golden_pairs_that_do_not_fit_the_stages_are_refused(change: str, copied: Path):
    golden = dict(open_bundle(copied).golden)
    code = golden.pop("code")
    altered = {
        "missing": {},
        "another shape": {"code": code[:, :-1]},
        "empty": {"code": code[:0]},
    }[change]
    np.savez(copied / "golden.npz", **golden, **altered)
    sign_files(copied)
    with pytest.raises(BundleError, match="do not fit the stages") as caught:
        _ = open_bundle(copied).golden
    assert "code" in str(caught.value.expected)


def test_golden_pairs_of_a_declared_size_that_no_memory_has_are_refused(copied: Path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999), }"
    content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(copied / "golden.npz", "w") as archive:
        archive.writestr("code.npy", content)
    sign_files(copied)
    with pytest.raises(BundleError, match="unreadable golden pairs"):
        _ = open_bundle(copied).golden


# Weights.


def test_weights_are_read_only_views_of_one_map(bundle: Bundle):
    for precision in bundle.manifest.precisions:
        weights = bundle.weights(precision)
        assert weights is bundle.weights(precision)
        assert sum(w.size for w in weights.values()) == bundle.manifest.parameter_count
        for weight in weights.values():
            assert weight.dtype == precision.dtype
            assert not weight.flags.writeable
            assert not weight.flags.owndata
            with pytest.raises(ValueError, match="read-only"):
                weight[...] = 0


def test_the_layout_is_where_the_bytes_are(bundle: Bundle):
    path = bundle.weights_path(Precision.FP16)
    raw = path.read_bytes()
    expected = safetensors.deserialize(raw)
    layout = safetensors_layout(path)
    assert set(layout) == {name for name, _ in expected}
    for name, tensor in expected:
        precision, shape, offset, length = layout[name]
        assert precision is Precision.FP16
        assert list(shape) == tensor["shape"]
        assert raw[offset : offset + length] == bytes(tensor["data"])


def test_a_damaged_weights_file_is_a_bundle_error(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match="unreadable weights"):
        map_safetensors(path)


def test_a_precision_or_stage_that_is_not_there_is_named(dense_bundle: Bundle, copied: Path):
    with pytest.raises(BundleError, match=r"no such stage[^$]*classifier"):
        dense_bundle.graph("classifier", Precision.FP32)
    manifest = dense_bundle.manifest
    weights = {Precision.FP32: manifest.weights[Precision.FP32]}
    resign(
        copied,
        weights=weights,
        graphs={Precision.FP32: manifest.graphs[Precision.FP32]},
    )
    with pytest.raises(BundleError, match="does not hold this precision") as caught:
        open_bundle(copied).weights(Precision.BF16)
    assert "--precision fp32,bf16" in str(caught.value.hint)
