"""From a torch module to one canonical ONNX graph that holds encoder and decoder."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tiedexport.errors import GraphError
from tiedexport.golden import CODE, INPUT, RECONSTRUCTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from tiedexport.families import TiedStack

OPSETS = range(18, 24)
"""Opsets that the exporter writes and that ONNX Runtime and TensorRT's parser read."""


class _BothStages(nn.Module):
    """Hands out the code as well, so that one export serves every stage."""

    def __init__(self, model: TiedStack) -> None:
        super().__init__()
        self.model = model  # hence the prefix that the canonical pass removes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.model.encode(x)
        return code, self.model.decode(code)


def graph_from_module(module: TiedStack, opset: int) -> ir.Model:
    """Export with torch's dynamo exporter: inputs `input`, outputs `code` and `reconstruction`.

    The exporter's own optimiser stays off: it folds the transpose of a small tied weight, or of
    any weight with one use, into a second copy.

    Args:
        module: in evaluation mode, float32.
        opset: ONNX operator set, one of `OPSETS`.

    Raises:
        GraphError: the exporter failed, in its own words.
    """
    example = torch.zeros(2, *module.input_shape)
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                _BothStages(module).eval(),
                (example,),
                dynamo=True,
                optimize=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[CODE, RECONSTRUCTION],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:
        raise GraphError("torch could not export the model", got=str(error)) from error
    assert program is not None  # the dynamo exporter always returns a program
    return program.model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of torchvision's absence and of its own deprecations: not our user's."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
