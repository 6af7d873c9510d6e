"""Repositories for Triton's own onnxruntime and tensorrt backends, which no wheel brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from conftest import resign, sign_files
from triton_schema import STAGES, config_of, parameters_of
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, ModelInstanceGroup

from tiedexport import rounding
from tiedexport.bundle import open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import BundleError, UsageError
from tiedexport.manifest import FileRecord, PlanRecord
from tiedexport.package import package
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle

WEIGHTS = "weights.fp32.safetensors"


@pytest.fixture
def graphs(dense_bundle: Bundle, tmp_path: Path) -> Path:
    """A repository of the onnxruntime backend."""
    package(dense_bundle, tmp_path, name="m", backend="onnxruntime", threads=2, instances=2)
    return tmp_path


def opened(model: Path) -> onnxruntime.InferenceSession:
    """A session as the backend opens it: with no option that concerns weights."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it says of each weight that it is no constant
    return onnxruntime.InferenceSession(
        model / "1/model.onnx", options, providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_the_schema_reads_a_configuration_of_onnxruntime(graphs: Path, stage: str) -> None:
    config = config_of(graphs / f"m_{stage}")
    assert config.backend == "onnxruntime"
    assert {t.data_type for t in (*config.input, *config.output)} == {TYPE_FP32}
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
    assert parameters_of(config) == {"intra_op_thread_count": "2"}


@pytest.mark.parametrize("stage", STAGES)
def test_onnxruntime_takes_the_weights_for_no_constants_and_computes_the_same(
    graphs: Path, dense_bundle: Bundle, stage: str
) -> None:
    spec = dense_bundle.manifest.stage(stage)
    (given,), (computed,) = spec.inputs, spec.outputs
    session = opened(graphs / f"m_{stage}")
    assert [i.name for i in session.get_inputs()] == [given.name]
    weights = {layer.weight for layer in spec.layers if layer.weight is not None}
    assert {i.name for i in session.get_overridable_initializers()} == weights
    x = dense_bundle.golden[given.name].astype(np.float32)
    (output,) = session.run(None, {given.name: x})
    bound = rounding.forward_bound(
        spec.layers,
        dense_bundle.weights(Precision.FP32),
        x.astype(np.float64),
        precision=Precision.FP32,
        accumulation=Precision.FP32,
        io=Precision.FP32,
    ).bound
    assert (np.abs(output - dense_bundle.golden[computed.name]) <= bound).all()


def test_the_weights_of_all_models_are_one_file(graphs: Path) -> None:
    files = [path.stat() for path in graphs.rglob(WEIGHTS)]
    assert len(files) == 4
    assert len({status.st_ino for status in files}) == 1


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_types_that_onnxruntime_would_store_again_are_refused(
    dense_bundle: Bundle, tmp_path: Path, precision: str
) -> None:
    with pytest.raises(UsageError, match="casts") as error:
        package(dense_bundle, tmp_path, backend="onnxruntime", precision=precision)
    assert "--backend python" in str(error.value)


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
def test_instances_are_on_the_device_that_is_asked_for(
    dense_bundle: Bundle, tmp_path: Path, backend: str
) -> None:
    package(dense_bundle, tmp_path, name="m", backend=backend, device="gpu", precision="fp16")
    kinds = {config_of(tmp_path / f"m_{stage}").instance_group[0].kind for stage in STAGES}
    assert kinds == {ModelInstanceGroup.KIND_GPU}


def with_engines(path: Path, **changes: Any) -> Bundle:
    """The bundle at `path` with an engine of each stage, as TensorRT leaves them."""
    bundle = open_bundle(path)
    plans, files = [], dict(bundle.manifest.files)
    for stage in STAGES:
        file = f"plans/{stage}.plan"
        (path / "plans").mkdir(exist_ok=True)
        (path / file).write_text(f"engine of the {stage}")
        files[file] = FileRecord(0, "")
        fields = {
            "target": "tensorrt",
            "package": "tensorrt",
            "weights": "baked",
            "options": EngineOptions(profiles=((1, 8, 256),)),
            **changes,
        }
        plans.append(
            PlanRecord(
                file=file,
                stage=stage,
                precision=Precision.FP16,
                package_version="10.13",
                compute_capabilities=(89,),
                bindings=(),
                graph_sha256="",
                **fields,
            )
        )
    resign(path, plans=tuple(plans), files=files)
    sign_files(path)
    return open_bundle(path)


def test_engines_that_hold_their_weights_become_models(plain: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    package(with_engines(plain), repository, name="m", backend="tensorrt", max_batch=256)
    for stage in STAGES:
        config = config_of(repository / f"m_{stage}")
        assert (config.backend, config.max_batch_size) == ("tensorrt", 256)
        assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
        plan = repository / f"m_{stage}/1/model.plan"
        assert plan.read_text() == f"engine of the {stage}"
        assert plan.stat().st_nlink == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": "shared"}, "shared fp16 of tensorrt"),
        ({"weights": "one-plan"}, "one-plan fp16 of tensorrt"),
        ({"package": "tensorrt_rtx"}, "baked fp16 of tensorrt_rtx"),
    ],
)
def test_engines_that_the_backend_cannot_feed_are_refused_by_name(
    plain: Path, tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    with pytest.raises(BundleError, match=told) as error:
        package(with_engines(plain, **changes), tmp_path / "models", backend="tensorrt")
    assert "--weights baked" in str(error.value)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_batch": 512}, "batches of 1 to 256"),
        ({"device": "cpu"}, "engines run on GPUs"),
    ],
)
def test_what_no_engine_can_do_is_refused(
    plain: Path, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        package(with_engines(plain), tmp_path / "models", backend="tensorrt", **options)


def test_a_bundle_without_engines_says_how_to_build_them(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="no engine of the") as error:
        package(dense_bundle, tmp_path, backend="tensorrt")
    assert "tiedexport build" in str(error.value)
