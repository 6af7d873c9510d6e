"""Results of audit and retie made by hand, for tests of what shows them."""

from __future__ import annotations

import handmade

from tiedexport.results.ties import (
    AuditResult,
    Finding,
    Left,
    Mend,
    RetieResult,
    Stage,
    StoredCopy,
    TiedWeight,
)

FOLDER = "/home/someone/a project/with a long path/models/digits"
UNTIED_FORM = "transposed"
NO_GRAPH = "a safetensors file holds no graph; give the .onnx as well"
NO_GPU = "no CUDA driver (libcuda.so.1: cannot open shared object file); needs an NVIDIA GPU"


def copy(
    name: str,
    file: str = "weights.fp32.safetensors",
    *,
    form: str = "original",
    offset: int | None = 1088,
    shape: tuple[int, ...] = (392, 784),
    uses: tuple[str, ...] = (),
    scope: str = "",
) -> StoredCopy:
    size_bytes = 4
    for extent in shape:
        size_bytes *= extent
    path = file if file == "memory" else f"{FOLDER}/{file}"
    return StoredCopy(name, path, offset, size_bytes, "float32", shape, form, uses, scope)


def tie(*copies: StoredCopy) -> TiedWeight:
    stored = sum(each.size_bytes for each in copies)
    return TiedWeight(copies[0].name, copies, copies[0].size_bytes, stored)


def held(layer: int = 0) -> TiedWeight:
    uses = (f"encoder.{layer} (Gemm) input 1", f"decoder.{layer} (Transpose) input 0")
    return tie(copy(f"layers.{layer}.weight", offset=1088 + layer * 1_229_312, uses=uses))


def broken(layer: int = 0) -> TiedWeight:
    return tie(
        copy(
            f"layers.{layer}.weight",
            "encoder.onnx",
            offset=412 + layer,
            uses=(f"node_linear_{layer} (Gemm) input 1",),
        ),
        copy(
            f"val_{layer}",
            "decoder.onnx",
            form=UNTIED_FORM,
            offset=97 + layer,
            shape=(784, 392),
            uses=(f"node_matmul_{layer} (MatMul) input 1",),
        ),
    )


def stage(name, status, *ties: TiedWeight, subject="", reason="", counts=True, rest=9000) -> Stage:
    needed = sum(each.needed_bytes for each in ties) + rest
    stored = sum(each.stored_bytes for each in ties) + rest
    return Stage(name, status, subject, reason, ties, needed, stored, counts)


def not_run(name, reason=NO_GRAPH) -> Stage:
    return Stage(name, "not run", reason=reason)


def audit(*stages: Stage, findings=(), things=("out/digits.tied",)) -> AuditResult:
    return AuditResult(things, stages, handmade.ENVIRONMENT, 1.25, findings)


def healthy(layers: int = 1) -> AuditResult:
    """A bundle whose ties hold wherever something ran; ONNX Runtime's defaults copy."""
    ties = tuple(map(held, range(layers)))
    both = tuple(broken(layer) for layer in range(layers))
    optimised = "ONNX Runtime's optimised graph"
    return audit(
        not_run("Python parameters", "a bundle holds no Python module"),
        not_run("checkpoint", "a bundle holds no checkpoint"),
        stage("ONNX files", "one copy", *ties, subject="fp32"),
        stage("ONNX files", "one copy", *ties, subject="fp16"),
        stage(optimised, "one copy", *ties, subject="fp32, memory=shared"),
        stage(optimised, "copies", *both, subject="fp32, defaults", counts=False),
        stage("process memory", "one copy", subject="fp32", reason="growth of Pss", rest=1_300_000),
        not_run("engine plan", "the bundle holds no engines"),
        not_run("device memory", NO_GPU),
    )


def untied(layers: int = 1, whole: int = 0) -> AuditResult:
    """An encoder and a decoder exported apart: `layers` ties lost, `whole` kept."""
    ties = (*(held(layers + n) for n in range(whole)), *map(broken, range(layers)))
    return audit(
        not_run("Python parameters"),
        not_run("checkpoint"),
        stage("ONNX files", "copies", *ties, subject="encoder.onnx, decoder.onnx"),
        not_run("ONNX Runtime's optimised graph", "unknown operator com.acme:Swish"),
        not_run("process memory", "unknown operator com.acme:Swish"),
        not_run("engine plan", NO_GPU),
        not_run("device memory", NO_GPU),
        things=("encoder.onnx", "decoder.onnx"),
    )


FINDINGS = (
    Finding(
        "lost by assign-load",
        "encoder.weight, decoder.weight",
        "load_state_dict(assign=True) gives each name a Parameter of its own",
        "model.load_state_dict(state)  # without assign",
        breaks_now=False,
    ),
    Finding(
        "parameter of a transpose",
        "decoder.weight (models/mine.py:12)",
        "two Parameters on one storage: an optimizer steps both, so the weight moves twice, and "
        "deepcopy or a change of type unties them without a word",
        "x = F.linear(z, self.encoder.weight.t(), self.decoder_bias)  # one Parameter, used twice",
    ),
)


def module() -> AuditResult:
    """A live module whose decoder holds a Parameter of the transpose."""
    shared = tie(
        copy("encoder.weight", "memory", offset=0x7F12_3400_0040, uses=("encoder.weight",)),
        copy("decoder.weight", "memory", form="transposed", offset=None, shape=(784, 392)),
    )
    return audit(
        stage("Python parameters", "copies", shared, subject="mine:make"),
        *(not_run(name, "not asked for") for name in ("checkpoint", "ONNX files")),
        findings=FINDINGS,
        things=("mine:make",),
    )


def retied(mends: int = 1, **changes) -> RetieResult:
    """An encoder and a decoder given back their one weight; `changes` replace fields."""
    fields = {
        "inputs": (f"{FOLDER}/encoder.onnx", f"{FOLDER}/decoder.onnx"),
        "outputs": ("out/encoder.onnx", "out/decoder.onnx", "out/weights.data"),
        "mends": tuple(
            Mend(
                f"{FOLDER}/encoder.onnx: layers.{n}.weight",
                f"{FOLDER}/decoder.onnx: val_{n}",
                "transposed",
                "Gemm transB",
                1_229_312,
            )
            for n in range(mends)
        ),
        "left": (),
        "proposals": (),
        "proof": "bit for bit",
        "proof_detail": "2 files, 6 random inputs each, onnxruntime 1.31.1, prepacking off",
        "bytes_before": 2 * 1_229_312 * mends + 2000,
        "bytes_after": 1_229_312 * mends + 1900,
        "environment": handmade.ENVIRONMENT,
        "seconds": 2.0,
    }
    return RetieResult(**(fields | changes))


LEFT = (
    Left("m.onnx: W", "m.onnx: W_1 in function Block", "same", "it stands in a function's body"),
    Left("m.onnx: W", "m.onnx: W_2 in function Block", "same", "it stands in a function's body"),
    Left("m.onnx: W", "m.onnx: W_in", "transposed", "it is an input that a caller may override"),
)
PROPOSALS = (
    Mend("m.onnx: W", "m.onnx: W [old]", "transposed", "Transpose", 4096, difference=1.25e-4),
)
