"""A stage of a bundle in Triton's python backend, which runs each instance in its own process.

The bundle lies in the repository once; every instance of every model maps the weights of that one
file, so that a host holds them once.
"""

from __future__ import annotations

import ctypes
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.bundle import open_bundle
from tiedexport.errors import TiedExportError
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = (ctypes.py_object, ctypes.c_void_p)


class TritonPythonModel:
    """What the python backend makes of a model's `model.py`, an instance at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle of this version in the runtime that the configuration names.

        Args:
            args: the backend's: `model_config` in JSON, `model_repository` (the folder of this
                model), `model_version` and more.

        Raises:
            TiedExportError: the bundle cannot be opened or run here; the model does not load then.
        """
        self._triton = import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        told = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._stage = told["stage"]
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        place = told["bundle"].format(version=args["model_version"])
        bundle = open_bundle(
            Path(args["model_repository"], place).resolve(),
            "size" if told["check"] == "size" else "hash",
        )
        self._session = open_session(
            bundle,
            runtime=told["runtime"],
            precision=told.get("precision"),
            threads=int(told["threads"]),
        )
        runs_in = f"{self._session.runtime} {self._session.precision}"
        self._triton.Logger.log_info(f"{bundle.path}: {self._stage} in {runs_in}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Compute what the scheduler put together in one run; each request gets its rows."""
        triton = self._triton
        tensors = (triton.get_input_tensor_by_name(asked, self._input) for asked in requests)
        inputs = [np.from_dlpack(tensor) for tensor in tensors]
        try:
            x = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
            computed = self._session.run(self._stage, x)
        except TiedExportError as error:
            refusal = triton.TritonError(str(error))
            return [triton.InferenceResponse(output_tensors=[], error=refusal) for _ in inputs]
        ends = np.cumsum([len(rows) for rows in inputs])
        return [
            triton.InferenceResponse([triton.Tensor.from_dlpack(self._output, _Lent(rows))])
            for rows in np.split(computed, ends[:-1])
        ]

    def finalize(self) -> None:
        """Free what the runtime holds."""
        self._session.close()


class _Lent:
    """An array that the backend takes over by DLPack, without a copy.

    Arrays go in and out by DLPack alone, as a backend that was built for numpy 1 misreads those of
    numpy 2 without a word. It renames the capsule to what numpy's destructor of capsules does not
    know, and complains of in the log at each response; the array itself is freed by another
    function, which the backend calls.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, stream: object = None) -> object:
        capsule = self._array.__dlpack__()
        _set_destructor(capsule, None)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()
