"""A small bundle and results made by hand, for tests of what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from tiedexport.bundle import Bundle, open_bundle, staging_directory, write_manifest
from tiedexport.manifest import SCHEMA, Manifest, Tolerance
from tiedexport.results import (
    BenchResult,
    Comparison,
    Environment,
    Latency,
    Quality,
    Reconstruction,
    VerifyResult,
)
from tiedexport.spec import (
    DataRecord,
    Layer,
    Precision,
    StageSpec,
    TensorSpec,
    Tie,
    TrainingRecord,
)

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16 = Precision.FP32, Precision.FP16
SIDE, CODE = 6, 5
ENVIRONMENT = Environment("3.12.1", "Linux-x86_64", "A <fast> CPU", 2, {"numpy": "2.4.6"})

X = TensorSpec("image", FP32, ("batch", SIDE, SIDE))
Z = TensorSpec("code", FP32, ("batch", CODE))
Y = TensorSpec("reconstruction", FP32, ("batch", SIDE, SIDE))
ENCODER = (Layer("reshape", shape=(SIDE * SIDE,)), Layer("dense", "layers.0.weight", "b"))
DECODER = (
    Layer("dense", "layers.0.weight", "c", transposed=True),
    Layer("reshape", shape=(SIDE, SIDE)),
)


def training_record(epochs: int = 12) -> TrainingRecord:
    falling = tuple(1.0 / (n + 1) for n in range(epochs))
    data = DataRecord("synthetic-digits", {"seed": 0}, (SIDE, SIDE), 10, 6, 4, "0" * 64)
    return TrainingRecord(
        recipe={"name": "handmade"},
        data=data,
        epochs=epochs,
        seed=0,
        best_epoch=epochs - 1,
        validation_rmse=falling[-1],
        test_rmse=0.0625,
        pca_test_rmse=0.0583,
        parameters=221,
        untied_parameters=401,
        train_loss_history=falling,
        validation_rmse_history=falling,
        seconds=3.0,
    )


def bundle(path: Path, *, name: str = "handmade", training: bool = True) -> Bundle:
    """One tied dense layer, two precisions; its graphs are placeholders that nothing parses."""
    rng = np.random.default_rng(7)
    weights = {
        "b": rng.normal(size=CODE),
        "c": rng.normal(size=SIDE * SIDE),
        "layers.0.weight": rng.normal(size=(CODE, SIDE * SIDE)),
    }
    stages = (
        StageSpec("encoder", (X,), (Z,), ENCODER),
        StageSpec("decoder", (Z,), (Y,), DECODER),
        StageSpec("autoencoder", (X,), (Y,), ENCODER + DECODER),
    )
    x = rng.random((4, SIDE, SIDE), np.float32)
    with staging_directory(path) as staging:
        for precision in (FP32, FP16):
            tensors = {key: value.astype(precision.dtype) for key, value in weights.items()}
            save_file(tensors, staging / f"weights.{precision}.safetensors")
        for stage in stages:
            (staging / f"{stage.name}.onnx").write_bytes(b"placeholder")
        np.savez(
            staging / "golden.npz",
            image=x,
            code=rng.normal(size=(4, CODE)),
            reconstruction=np.clip(x + 0.05, 0, 1).astype(np.float64),
        )
        graphs = {stage.name: f"{stage.name}.onnx" for stage in stages}
        write_manifest(
            staging,
            lambda files: Manifest(
                schema=SCHEMA,
                generator="tiedexport 0.1.0",
                created="2026-01-01T00:00:00Z",
                name=name,
                family="autoencoder",
                config={"widths": [SIDE * SIDE, CODE]},
                sample_shape=(SIDE, SIDE),
                io_dtype=FP32,
                opset=18,
                parameter_count=221,
                stages=stages,
                ties=(Tie("layers.0.weight", ("encoder.0", "decoder.0")),),
                weights={p: f"weights.{p}.safetensors" for p in (FP32, FP16)},
                graphs={FP32: graphs, FP16: graphs},
                plans=(),
                golden="golden.npz",
                tolerances=(Tolerance("autoencoder", FP32, FP32, 4.0, 1e-6, 1e-7),),
                training=training_record() if training else None,
                versions={"tiedexport": "0.1.0"},
                files=files,
            ),
        )
    return open_bundle(path)


def images(n: int) -> np.ndarray:
    """Inputs of the model's shape, float32 [n, SIDE, SIDE], the same for the same n."""
    return np.random.default_rng(n).random((n, SIDE, SIDE), np.float32)


def comparison(runtime: str, stage: str, precision: Precision, ratio: float) -> Comparison:
    return Comparison(
        runtime=runtime,
        stage=stage,
        precision=precision,
        status="passed" if ratio <= 1 else "failed",
        reason="" if ratio <= 1 else "error above its bound",
        absolute_error=ratio * 1e-6,
        relative_error=ratio * 1e-5,
        worst_index=(0, 1),
        error_in_bounds=ratio,
        bound=1e-6,
        accumulation=FP32,
        cosine=0.9999999,
        psnr_db=140.0,
    )


def verify_result(path: str = "handmade.tied", *, reason: str = "no <driver> & no GPU"):
    stages = ("encoder", "decoder", "autoencoder")
    rows = [comparison("onnxruntime", s, FP32, 0.1 * (i + 1)) for i, s in enumerate(stages)]
    rows += [comparison("torch", s, FP16, 0.3) for s in stages]
    rows += [Comparison("tensorrt", s, FP16, "not run", reason) for s in stages]
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, SIDE, SIDE), np.uint8)
    pictures = (
        Reconstruction("onnxruntime", FP32, pixels.shape, pixels.tobytes()),
        Reconstruction("torch", FP16, pixels.shape, (pixels ^ 1).tobytes()),
    )
    quality = (
        Quality("onnxruntime", FP32, "passed", test_rmse=0.0625, samples=4),
        Quality("tensorrt", FP16, "not run", reason),
    )
    return VerifyResult(path, tuple(rows), quality, pictures, ENVIRONMENT, 1.5)


def latency(runtime: str, precision: Precision, batch: int, median_s: float) -> Latency:
    return Latency(
        runtime=runtime,
        stage="autoencoder",
        precision=precision,
        batch=batch,
        threads=1,
        status="passed",
        iterations=1000,
        min_s=median_s * 0.9,
        mean_s=median_s * 1.05,
        median_s=median_s,
        max_s=median_s * 9,
        percentiles_s={"p50": median_s, "p95": median_s * 1.5, "p99": median_s * 2},
        throughput_per_s=batch / median_s,
    )


def bench_result(path: str = "handmade.tied", *, reason: str = "no <driver> & no GPU"):
    rows = []
    for batch in (1, 8, 64):
        rows.append(latency("onnxruntime", FP32, batch, 4e-5 * batch**0.7))
        rows.append(latency("torch", FP32, batch, 9e-5 * batch**0.6))
        rows.append(Latency("tensorrt", "autoencoder", FP16, batch, 1, "not run", reason))
    options = {"warmUp": 200.0, "duration": 1.0, "iterations": 10.0, "threads": 1.0}
    return BenchResult(path, tuple(rows), ENVIRONMENT, 9.0, options)
