"""ONNX graphs of a tied autoencoder, with its weights as inputs or beside it, as requests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tiedexport.engines import EngineRequest
from tiedexport.spec import Layer, Precision, StageSpec, TensorSpec

FEATURES, LATENT = 48, 32
SHAPES = {"w": (LATENT, FEATURES), "b": (LATENT,), "c": (FEATURES,)}
ONNX_TYPES = {
    Precision.FP16: TensorProto.FLOAT16,
    Precision.BF16: TensorProto.BFLOAT16,
    Precision.FP32: TensorProto.FLOAT,
}


def autoencoder_stage(features=FEATURES) -> StageSpec:
    layers = (
        Layer("dense", "w", "b"),
        Layer("relu"),
        Layer("dense", "w", "c", transposed=True),
        Layer("sigmoid"),
    )
    source, target = (TensorSpec(n, Precision.FP32, ("batch", features)) for n in "xy")
    return StageSpec("autoencoder", (source,), (target,), layers)


def autoencoder_nodes(precision: Precision) -> list[onnx.NodeProto]:
    """Gemm(x, W, b) → Relu → Gemm(·, Transpose(W), c) → Sigmoid, with fp32 at both ends."""
    return [
        helper.make_node("Cast", ["x"], ["x_cast"], to=ONNX_TYPES[precision]),
        helper.make_node("Gemm", ["x_cast", "w", "b"], ["z"], transB=1, name="encode"),
        helper.make_node("Relu", ["z"], ["code"]),
        helper.make_node("Transpose", ["w"], ["w_transposed"], perm=[1, 0]),
        helper.make_node("Gemm", ["code", "w_transposed", "c"], ["logits"], transB=1),
        helper.make_node("Cast", ["logits"], ["logits_fp32"], to=TensorProto.FLOAT),
        helper.make_node("Sigmoid", ["logits_fp32"], ["y"]),
    ]


def convolution_nodes(precision: Precision) -> list[onnx.NodeProto]:
    """Conv(x, k, b) → ConvTranspose(·, k, c), with fp32 at both ends."""
    geometry = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    return [
        helper.make_node("Cast", ["x"], ["x_cast"], to=ONNX_TYPES[precision]),
        helper.make_node("Conv", ["x_cast", "k", "b"], ["z"], **geometry),
        helper.make_node(
            "ConvTranspose", ["z", "k", "c"], ["logits"], output_padding=[1, 1], **geometry
        ),
        helper.make_node("Cast", ["logits"], ["y"], to=TensorProto.FLOAT),
    ]


def graph(nodes, shape, weights: dict[str, tuple[int, ...]], precision: Precision, baked=()):
    kind = ONNX_TYPES[precision]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])]
    if not baked:
        inputs += [helper.make_tensor_value_info(n, kind, s) for n, s in weights.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *shape])]
    built = helper.make_model(
        helper.make_graph(nodes, "stage", inputs, outputs, list(baked)),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    if not baked or not baked[0].external_data:
        onnx.checker.check_model(built, full_check=True)
    return built


def shared_request(target="rtx:sm89", precision=Precision.FP16, **changes) -> EngineRequest:
    model = graph(autoencoder_nodes(precision), [FEATURES], SHAPES, precision)
    fields = {
        "stage": autoencoder_stage(),
        "precision": precision,
        "target": target,
        "graph": model.SerializeToString(),
        "weight_names": tuple(SHAPES),
    }
    return EngineRequest(**(fields | changes))


def baked_request(directory, shapes=SHAPES, features=FEATURES, **changes) -> EngineRequest:
    """The weights lie beside the graph, one after the other in one external file."""
    random = np.random.default_rng(0)
    initializers = []
    with (directory / "weights.bin").open("wb") as file:
        for name, shape in shapes.items():
            data = random.standard_normal(shape).astype(np.float16)
            tensor = numpy_helper.from_array(data, name)
            onnx.external_data_helper.set_external_data(
                tensor, "weights.bin", offset=file.tell(), length=data.nbytes
            )
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            file.write(data.tobytes())
            initializers.append(tensor)
    nodes = autoencoder_nodes(Precision.FP16)
    model = graph(nodes, [features], {}, Precision.FP16, baked=initializers)
    path = directory / "autoencoder.onnx"
    path.write_bytes(model.SerializeToString())
    fields = {"stage": autoencoder_stage(features), "graph": path, "weights": "baked"}
    return shared_request(**(fields | {"weight_names": ()} | changes))
