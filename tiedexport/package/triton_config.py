"""config.pbtxt: what Triton Inference Server is told of a model, in protobuf's text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.spec import StageSpec, TensorSpec

_DATA_TYPES = {
    Precision.FP32: "TYPE_FP32",
    Precision.FP16: "TYPE_FP16",
    Precision.BF16: "TYPE_BF16",
}


class Word(str):
    """The name of an enumeration's value, which stands without quotes."""


Value = bool | int | str | Word | Mapping[str, "Value"] | list["Value"]
"""A field: a list is a repeated one, a mapping a message."""


def text(message: Mapping[str, Value]) -> str:
    """A message in protobuf's text format, a field a line, the same for the same message."""
    return "\n".join(_lines(message)) + "\n"


def _lines(message: Mapping[str, Value]) -> Iterator[str]:
    for name, field in message.items():
        for value in field if isinstance(field, list) else [field]:
            if isinstance(value, Mapping):
                yield f"{name} {{"
                yield from ("  " + line for line in _lines(value))
                yield "}"
            else:
                yield f"{name}: {_scalar(value)}"


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Word) or not isinstance(value, str):
        return str(value)
    plain = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n"}
    escaped = value.translate(plain).encode()
    return '"' + "".join(chr(b) if 32 <= b < 127 else f"\\{b:03o}" for b in escaped) + '"'


def of_stage(stage: StageSpec, preferred_batch: Sequence[int]) -> dict[str, Value]:
    """Inputs and outputs, and what each instance computes before it counts as ready.

    That is one row and the preferred batches: an instance that never gets a larger one never needs
    the memory for its rows.
    """
    (of_input,), (of_output,) = stage.inputs, stage.outputs
    return {
        "input": _tensor(of_input),
        "output": _tensor(of_output),
        "model_warmup": [_warm_up(of_input, batch) for batch in sorted({1, *preferred_batch})],
    }


def _tensor(spec: TensorSpec) -> dict[str, Value]:
    return {"name": spec.name, **_type(spec)}


def _warm_up(spec: TensorSpec, batch: int) -> dict[str, Value]:
    given: Value = {"key": spec.name, "value": {**_type(spec), "random_data": True}}
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": given}


def _type(spec: TensorSpec) -> dict[str, Value]:
    return {"data_type": Word(_DATA_TYPES[spec.dtype]), "dims": list(spec.element_shape)}


def parameters(values: Mapping[str, str]) -> list[Value]:
    """What the backend is told, as strings."""
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]
