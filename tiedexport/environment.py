"""The machine and the versions that a result was obtained with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
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


def cpu_slug(cpu: str) -> str:
    """The name of a processor as a name of files: "AMD EPYC 9V74" → "amd-epyc-9v74"."""
    return re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")


def commit(besides: Path | None = None) -> str:
    """The commit of the checkout that this package is in, "-dirty" if files differ from it.

    Args:
        besides: a folder whose files may differ.

    Returns:
        "" for a package that was installed, wherever that may be.
    """
    if not _git("ls-files", "--error-unmatch", __file__):
        return ""
    ignored, top = [], Path(_git("rev-parse", "--show-toplevel"))
    if besides is not None and besides.resolve().is_relative_to(top):
        ignored = [f":(top,exclude){besides.resolve().relative_to(top)}"]
    changed = _git("status", "--porcelain", "--", ":/", *ignored)
    return (_git("describe", "--always") or "unknown") + "-dirty" * bool(changed)


def _git(*arguments: str) -> str:
    """What git says in the folder of this package; "" where it refuses or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
