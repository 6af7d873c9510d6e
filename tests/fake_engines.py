"""An engine builder without TensorRT: its plans tell what they were built from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tiedexport import engines
from tiedexport.engine_options import effective
from tiedexport.engines import Engine, EngineRequest
from tiedexport.errors import RuntimeFailedError
from tiedexport.results import Availability

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = "fake"
FP16_STAGES = ["encoder.fp16", "decoder.fp16", "autoencoder.fp16"]


class FakeBuilder:
    """Builds for targets that begin with "fake", and remembers what it was asked for."""

    name, forms = "fakert", "fake, fake:2"

    def __init__(self) -> None:
        self.version = "1.0"
        self.missing: set[str] = set()
        self.refused: set[str] = set()
        self.failing: set[str] = set()
        self.requests: list[EngineRequest] = []
        self.before: Callable[[EngineRequest], None] = lambda request: None

    def accepts(self, target: str) -> bool:
        return target.startswith(TARGET)

    def default_targets(self) -> tuple[str, ...]:
        return (TARGET,)

    def availability(self, target: str) -> Availability:
        if target in self.missing:
            return Availability(False, reason="no such GPU", remedy="buy one")
        return Availability(True, self.version)

    def fingerprint(self, target: str) -> tuple[str, ...]:
        assert target not in self.missing
        return self.name, self.version, target

    def refusal(self, request: EngineRequest) -> str | None:
        return "too large" if request.stage.name in self.refused else None

    def build(self, request: EngineRequest, progress: engines.Progress) -> Engine:
        self.before(request)
        self.requests.append(request)
        for step in range(4):
            progress("tactics", step + 1, 4)
            progress("nested", step % 2 + 1, 2)
        if request.stage.name in self.failing:
            raise RuntimeFailedError("the builder failed", got="out of memory")
        assert isinstance(request.graph, Path)
        options, notes = effective(request.options, request.weights)
        content = [request.graph.read_bytes(), str(options).encode(), request.target.encode()]
        if request.weights != "shared":
            (weights,) = request.graph.parent.glob(f"weights.{request.precision}.safetensors")
            content.append(weights.read_bytes())
        plan = hashlib.sha256(b"".join(content)).digest() * 8
        return Engine(
            plan, self.name, self.version, (89,), (), notes=notes, options=options, layers=("one",)
        )

    @property
    def built(self) -> list[str]:
        """What was built since this was last looked at."""
        stages = [f"{r.stage.name}.{r.precision}" for r in self.requests]
        self.requests.clear()
        return stages


def run_apart(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script that imports this module in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def only_builder(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    """A builder that is the only one there is."""
    fake = FakeBuilder()
    monkeypatch.setattr(engines, "all_builders", lambda: (fake,))
    return fake
