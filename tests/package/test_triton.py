"""Model repositories of Triton as `tiedexport package` writes them; no server needed."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import tiedexport
from conftest import contents, resign
from google.protobuf import text_format
from triton_schema import STAGES, config_of, parameters_of
from tritonclient.grpc import model_config_pb2

from tiedexport.bundle import MANIFEST, open_bundle
from tiedexport.errors import BundleError, MissingRuntimeError, UsageError
from tiedexport.inspect import inspect
from tiedexport.package import formats, package
from tiedexport.package.triton import model_name
from tiedexport.package.triton_config import Word, text

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_is_a_model_whose_configuration_the_schema_reads(
    bundle: Bundle, tmp_path: Path, stage: str
) -> None:
    written = package(
        bundle, tmp_path, name="m", instances=3, preferred_batch=(4, 8), max_batch=8, threads=2
    )
    config = config_of(tmp_path / f"m_{stage}")
    spec = bundle.manifest.stage(stage)
    assert (config.name, config.backend, config.max_batch_size) == (f"m_{stage}", "python", 8)
    for told, tensor in ((config.input, spec.inputs), (config.output, spec.outputs)):
        assert [(t.name, tuple(t.dims)) for t in told] == [(tensor[0].name, tensor[0].shape[1:])]
        assert {t.data_type for t in told} == {model_config_pb2.TYPE_FP32}
    group = config.instance_group[0]
    assert (group.count, group.kind) == (3, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.version_policy.latest.num_versions == 2
    assert [warm.batch_size for warm in config.model_warmup] == [1, 4, 8]
    assert parameters_of(config)["threads"] == "2"
    assert sorted(written.models) == sorted(f"m_{stage}" for stage in STAGES)


def test_the_bundle_is_in_the_repository_once_and_whole(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    package(dense_bundle, tmp_path, name="m")
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(dense_bundle.manifest.weights)
    homes = set()
    for stage in STAGES:
        place = parameters_of(config_of(tmp_path / f"m_{stage}"))["bundle"]
        homes.add((tmp_path / f"m_{stage}" / place.format(version=1)).resolve())
    (home,) = homes
    assert inspect(home) == dense_bundle.manifest
    assert contents(home).keys() == {MANIFEST, *dense_bundle.manifest.files}


def test_a_repository_gets_the_next_version_of_another_training(
    dense_bundle: Bundle, plain: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    assert package(dense_bundle, repository, name="m").version == 1
    before = contents(repository)
    resign(plain, created="later")
    assert package(plain, repository, name="m").version == 2
    after = contents(repository)
    assert before.items() <= after.items()
    assert {Path(name).parts[:2] for name in after.keys() - before.keys()} == {
        (f"m_{stage}", "2") for stage in STAGES
    }


def test_the_same_bundle_is_no_new_version_but_its_configuration_is_written(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    package(dense_bundle, tmp_path, name="m")
    shutil.rmtree(tmp_path / "m_encoder/1")  # as a killed call leaves it
    assert package(dense_bundle, tmp_path, name="m", instances=4).version == 1
    assert (tmp_path / "m_encoder/1/model.py").is_file()
    assert not list(tmp_path.glob("*/2"))
    assert config_of(tmp_path / "m_decoder").instance_group[0].count == 4


def test_a_model_of_another_interface_is_left_alone(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    package(bundles["dense"], tmp_path, name="m")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="another input") as error:
        package(bundles["untied"], tmp_path, name="m")
    assert "--name" in str(error.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "plain_name"), [("digits", "digits"), ("a b/é", "a_b"), ("../x", "x")]
)
def test_a_name_becomes_one_of_a_folder_and_of_a_url(name: str, plain_name: str) -> None:
    assert model_name(name) == plain_name


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "tar"}, "unknown format"),
        ({"shards": 3}, "options that triton does not have"),
        ({"backend": "pytorch"}, "unknown backend"),
        ({"device": "tpu"}, "unknown device"),
        ({"check": "none"}, "unknown check"),
        ({"runtime": "none"}, "unknown runtime"),
        ({"threads": 0}, "threads"),
        ({"instances": 0}, "cannot be of nothing"),
        ({"preferred_batch": (128,)}, "never put together"),
        ({"name": "///"}, "no name for a model"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"server": "localhost:8000"}, "not the URL of a server"),
        ({"server": "http://"}, "not the URL of a server"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    dense_bundle: Bundle, tmp_path: Path, options: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        package(dense_bundle, tmp_path / "models", **options)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("place", [".", "models"])
def test_nothing_is_written_into_the_bundle(plain: Path, place: str) -> None:
    before = contents(plain)
    with pytest.raises(UsageError, match="its manifest lists"):
        package(plain, plain / place)
    assert contents(plain) == before


def test_a_server_that_is_not_there_leaves_what_was_written(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    with socket.socket() as nobody:  # bound, and listening to nobody
        nobody.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(MissingRuntimeError, match="no server answers") as error:
            package(dense_bundle, tmp_path, name="m", server=server)
    assert "repeat the command" in str(error.value)
    assert (tmp_path / "m_encoder/1/model.py").is_file()


def test_what_answers_and_is_no_http_server_is_told(dense_bundle: Bundle, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as caller:
                caller.sendall(b"\0\0\6\4\0\0\0\0\0\n")  # as HTTP/2, and so gRPC, begins
                while caller.recv(4096):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        server = f"http://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(MissingRuntimeError, match="Triton's HTTP port"):
            package(dense_bundle, tmp_path, name="m", server=server)
        thread.join()


def test_a_number_that_any_model_has_had_is_not_given_again(
    dense_bundle: Bundle, plain: Path, tmp_path: Path
) -> None:
    package(dense_bundle, tmp_path, name="m", backend="onnxruntime")
    shutil.rmtree(tmp_path / "m_autoencoder/1")  # its encoder still has other weights
    resign(plain, created="later")
    assert package(plain, tmp_path, name="m", backend="onnxruntime").version == 2


def test_a_precision_that_the_bundle_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not hold this precision"):
        package(folder / "model.tied", tmp_path, precision="bf16")


def test_formats_are_the_files_without_an_underscore() -> None:
    assert formats() == ("kubernetes", "triton")


def test_text_is_what_protobuf_reads_back() -> None:
    awkward = 'a"b\\c\nd é\x01'
    written = text({"name": awkward, "backend": "x", "max_batch_size": 3})
    read = text_format.Parse(written, model_config_pb2.ModelConfig())
    assert (read.name, read.backend, read.max_batch_size) == (awkward, "x", 3)
    kind = text({"instance_group": [{"kind": Word("KIND_GPU"), "passive": True}]})
    group = text_format.Parse(kind, model_config_pb2.ModelConfig()).instance_group[0]
    assert (group.kind, group.passive) == (model_config_pb2.ModelInstanceGroup.KIND_GPU, True)


def test_the_command_says_what_it_wrote_and_how_to_serve_it(folder: Path, tmp_path: Path) -> None:
    done = tiedexport("package", folder / "model.tied", "--format", "triton", "-o", "models",
                      cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "version 1" in done.stdout
    assert "next: tritonserver --model-repository=" in done.stdout
    name = open_bundle(folder / "model.tied").manifest.name
    assert (tmp_path / "models" / f"{name}_encoder" / "1/model.py").is_file()
