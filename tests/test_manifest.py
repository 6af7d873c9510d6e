"""A manifest is refused before anything acts on it: foreign, newer, or at odds with itself."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec
import pytest
from conftest import resign

from tiedexport import __version__
from tiedexport.bundle import MANIFEST, Bundle, open_bundle
from tiedexport.errors import BundleError
from tiedexport.manifest import SCHEMA, decode_manifest, encode_manifest
from tiedexport.spec import Precision


@pytest.fixture
def copied(dense_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense_bundle.path, tmp_path / "copy.tied"))


def test_a_newer_schema_is_refused_with_the_version_to_install(copied: Path):
    resign(copied, schema=SCHEMA + 1, generator="tiedexport 9.1.0")
    with pytest.raises(BundleError, match="newer tiedexport") as caught:
        open_bundle(copied)
    assert caught.value.hint == "pip install 'tiedexport>=9.1.0'"


def test_a_newer_schema_is_told_from_damage_whatever_fields_it_has(copied: Path):
    header = b'{"schema": %d, "generator": "tiedexport 9.1.0", "novel": []\n}' % (SCHEMA + 1)
    (copied / MANIFEST).write_bytes(encode_manifest(msgspec.Raw(header)))
    with pytest.raises(BundleError, match="newer tiedexport"):
        open_bundle(copied)


@pytest.mark.parametrize(
    "generator", ["tiedexport 9.1'; rm -rf ~; '", "tiedexport 9 1", "other 9.1.0", "9.1.0", ""]
)
def test_a_generator_that_is_no_release_of_ours_never_reaches_a_command(generator: str):
    header = {"schema": SCHEMA + 1, "generator": generator}
    with pytest.raises(BundleError, match="newer tiedexport") as caught:
        decode_manifest(encode_manifest(header), "here")
    assert caught.value.hint == "pip install --upgrade tiedexport"


@pytest.mark.parametrize("schema", [0, -1])
def test_a_schema_that_never_was_is_not_called_newer(schema: int):
    header = {"schema": schema, "generator": "tiedexport 9.1.0"}
    with pytest.raises(BundleError, match="never was"):
        decode_manifest(encode_manifest(header), "here")


@pytest.mark.parametrize("body", [b'{"schema": 1, "generator": "\xff"\n}', b"[" * 10**5 + b"\n}"])
def test_a_signed_manifest_that_json_cannot_hold_is_not_valid(body: bytes):
    with pytest.raises(BundleError, match="not valid"):
        decode_manifest(signed(body), "here")


@pytest.mark.parametrize(
    ("raw", "got", "expected"),
    [
        (b"{}", "no digest", "as its last member"),
        (b'{\n  "schema": 2\n}\n', "no digest", "as its last member"),
        (b'{,\n  "digest": "ab"\n}\n', "a digest 'ab", hashlib.sha256(b"{").hexdigest()),
    ],
)
def test_a_manifest_whose_digest_is_gone_or_another_says_which(raw: bytes, got, expected):
    with pytest.raises(BundleError, match="damaged or was edited") as caught:
        decode_manifest(raw, "here")
    assert str(caught.value.got).startswith(got)
    assert expected in str(caught.value.expected)


def signed(body: bytes) -> bytes:
    head = body.removesuffix(b"\n}")
    return head + b',\n  "digest": "%s"\n}\n' % hashlib.sha256(head).hexdigest().encode()


def _spec(**changes: object):
    def change(stage: dict) -> dict:
        return stage | {"inputs": [stage["inputs"][0] | changes]}

    return change


def _in_stages(change):
    return lambda m: m | {"stages": [change(stage) for stage in m["stages"]]}


PLAN = {
    "file": "golden.npz", "stage": "encoder", "precision": "fp16", "target": "rtx",
    "package": "tensorrt_rtx", "package_version": "1.7", "compute_capabilities": [89],
    "weights": "shared", "bindings": [], "graph_sha256": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda m: m | {"stages": []}, "no stage"),
        (lambda m: m | {"stages": m["stages"] * 2}, "two of one name"),
        (lambda m: m | {"weights": {}}, "different precisions"),
        (lambda m: m | {"weights": {}, "graphs": {}}, "or none"),
        (lambda m: m | {"graphs": {"fp32": m["graphs"]["fp32"]}}, "different precisions"),
        (lambda m: m | {"graphs": {key: {} for key in m["graphs"]}}, "graphs in fp32 of"),
        (lambda m: m | {"sample_shape": [21]}, "does not hold a sample"),
        (lambda m: m | {"plans": [PLAN | {"stage": "classifier"}]}, "unknown stage"),
        (_in_stages(lambda s: s | {"inputs": []}), "exactly one input"),
        (_in_stages(lambda s: s | {"outputs": s["outputs"] * 2}), "one output"),
        (_in_stages(_spec(shape=["batch", "foo"])), "batch axis alone is dynamic"),
        (_in_stages(_spec(shape=[8, 20])), "batch axis alone is dynamic"),
        (_in_stages(_spec(shape=["batch", -20])), "batch axis alone is dynamic"),
        (_in_stages(_spec(shape=[])), "batch axis alone is dynamic"),
        (_in_stages(lambda s: s | {"layers": [{"op": "dense"}]}), "has no weight"),
    ],
)
def test_a_signed_manifest_that_contradicts_itself_is_refused(change, fault, copied: Path):
    fields = change(msgspec.to_builtins(open_bundle(copied).manifest))
    (copied / MANIFEST).write_bytes(encode_manifest(fields))
    with pytest.raises(BundleError, match="contradicts itself") as caught:
        open_bundle(copied)
    assert fault in str(caught.value.got)


def test_a_signed_manifest_with_an_unknown_or_missing_field_is_not_valid(dense_bundle: Bundle):
    fields = msgspec.to_builtins(dense_bundle.manifest)
    for altered in (fields | {"novel": 1}, {k: v for k, v in fields.items() if k != "ties"}):
        with pytest.raises(BundleError, match="not valid"):
            decode_manifest(encode_manifest(altered), "here")


def test_the_generator_is_this_release(dense_bundle: Bundle):
    assert dense_bundle.manifest.generator == f"tiedexport {__version__}"


def test_a_layer_of_an_unknown_weight_is_refused_where_weights_are_read(copied: Path):
    fields = msgspec.to_builtins(open_bundle(copied).manifest)
    layers = [{"op": "dense", "weight": "layers.9.weight"}]
    stages = [stage | {"layers": layers} for stage in fields["stages"]]
    (copied / MANIFEST).write_bytes(encode_manifest(fields | {"stages": stages}))
    with pytest.raises(BundleError, match="not stored") as caught:
        open_bundle(copied).weights(Precision.FP32)
    assert caught.value.got == "layers.9.weight"
