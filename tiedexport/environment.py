"""The machine and the versions that a result was obtained with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tiedexport.results import Environment

PACKAGES = (
    "tiedexport",
    "numpy",
    "ml_dtypes",
    "safetensors",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-core",
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "polygraphy",
)
"""Distributions that can change a number or a time."""


def current() -> Environment:
    """This process's environment; versions come from installed metadata, nothing is imported."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        packages=packages(),
    )


def packages() -> dict[str, str]:
    """Version of each of `PACKAGES` that is installed."""
    return {name: found for name in PACKAGES if (found := installed_version(name))}


def installed_version(package: str) -> str | None:
    """Version of a distribution from its metadata, without importing it; None if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the kernel tells it, or the architecture where it tells none."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "cpu model", "hardware") and value.strip():
            return " ".join(value.split())
    return platform.machine() or "unknown"
