"""One node alone: a model whose inputs are all inputs of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    import onnx

    from tiedexport.feeds import Feed


def model_of(node: onnx.NodeProto, opsets: dict[str, int], feed: Feed) -> onnx.ModelProto:
    """The model.

    Args:
        node: has one output.
        opsets: domain → version.
        feed: its inputs, which have the names that the node reads.
    """
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feed.items()
    ]
    outputs = [ValueInfoProto(name=node.output[0])]
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets.items()]
    graph = helper.make_graph([node], "node", inputs, outputs)
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def evaluate(node: onnx.NodeProto, opsets: dict[str, int], feed: Feed) -> np.ndarray:
    """What ONNX's reference implementation makes of the inputs."""
    evaluator = ReferenceEvaluator(model_of(node, opsets, feed))
    with np.errstate(all="ignore"):
        outputs: Any = evaluator.run(None, feed)
    result: np.ndarray = outputs[0]
    return result
