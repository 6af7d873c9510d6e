"""From a torch module to one ONNX graph that holds encoder and decoder."""

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
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from torch.export import ExportedProgram

    from tiedexport.families import StagedModule

OPSETS = range(18, 24)
"""Opsets that the exporter writes and that ONNX Runtime and TensorRT's parser read."""

_WRAPPED = "model"
_FREE_BATCH = ({0: torch.export.Dim("batch")},)


class BothStages(nn.Module):
    """Hands out the code as well, so that one export serves every stage."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module(_WRAPPED, model)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[n, *input_shape] → code and reconstruction."""
        model = self.get_submodule(_WRAPPED)
        code = model.encode(x)  # type: ignore[operator]
        return code, model.decode(code)  # type: ignore[operator]


def graph_from_module(module: StagedModule, opset: int) -> ir.Model:
    """Export with torch's dynamo exporter: inputs `input`, outputs `code` and `reconstruction`.

    Args:
        module: in evaluation mode, float32.
        opset: ONNX operator set, one of `OPSETS`.

    Raises:
        GraphError: the exporter failed, in its own words.
    """
    program = program_from_module(BothStages(module).eval(), module.input_shape)
    model = graph_from_program(program, opset, [CODE, RECONSTRUCTION])
    unwrap_names(model.graph)
    return model


def program_from_module(module: nn.Module, input_shape: Sequence[int]) -> ExportedProgram:
    """What the module does to a batch of any size.

    Raises:
        GraphError: torch cannot say, in its own words.
    """
    example = torch.zeros(2, *input_shape)
    try:
        with quiet("torch.onnx"):
            return torch.export.export(module, (example,), dynamic_shapes=_FREE_BATCH)
    except Exception as error:
        raise GraphError("torch could not export the model", got=str(error)) from error


def graph_from_program(
    program: ExportedProgram, opset: int, outputs: Sequence[str] | None = None
) -> ir.Model:
    """Translate into ONNX operators, one for one, with the input named `input`.

    The exporter's own optimiser stays off: it folds the transpose of a small tied weight, or of
    any weight with one use, into a second copy.

    Args:
        program: of one input.
        opset: ONNX operator set, one of `OPSETS`.
        outputs: their names; by default the exporter's.

    Raises:
        GraphError: the exporter failed, in its own words.
    """
    try:
        with quiet("torch.onnx"):
            translated = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=_FREE_BATCH,
                verbose=False,
            )
    except Exception as error:
        raise GraphError("torch could not export the model", got=str(error)) from error
    assert translated is not None  # the dynamo exporter always returns a program
    return translated.model


def unwrap_names(graph: ir.Graph) -> None:
    """Give initializers the names that the module inside `BothStages` has for them."""
    for value in list(graph.initializers.values()):
        assert value.name is not None  # an initializer is found by its name
        del graph.initializers[value.name]
        value.name = value.name.removeprefix(f"{_WRAPPED}.")
        if value.const_value is not None:
            value.const_value.name = value.name
        graph.register_initializer(value)


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a logger of torch and all warnings.

    It warns of torchvision's absence and of its own deprecations, which are not our user's, and it
    logs what it then raises as well.
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
