"""Triton's python backend: tiedexport's own sessions, which share one mapping of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.package.triton import BUNDLE
from tiedexport.package.triton_config import Value, of_stage, parameters
from tiedexport.session import one_precision

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.package.triton import Options

_MODEL = '''"""Written by tiedexport, which must be installed where the server runs."""

from tiedexport.package.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class Backend:
    """Each instance is a process that opens the bundle in the repository."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        self._bundle, self._options = bundle, options
        if options.precision is not None:
            bundle.weights_path(one_precision(options.precision))  # refuses what it does not hold

    def config(self, stage: str) -> dict[str, Value]:
        """As the protocol says."""
        options = self._options
        home = f"../{options.name}_autoencoder/{{version}}/{BUNDLE}"
        told = {
            "stage": stage,
            "bundle": home,
            "runtime": options.runtime,
            "threads": str(options.threads),
            "check": options.check,
        }
        if options.precision is not None:
            told["precision"] = options.precision
        return {
            "backend": "python",
            **of_stage(self._bundle.manifest.stage(stage), options.preferred_batch),
            "parameters": parameters(told),
        }

    def fill(self, stage: str, version: Path, whole: Path) -> None:
        """As the protocol says."""
        (version / "model.py").write_text(_MODEL, "utf-8")
