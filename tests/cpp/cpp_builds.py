"""Builds of the C++ library that several suites share, kept in build/ between runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
BUILDS = ROOT / "build"
BUNDLE = ROOT / "tests" / "data" / "schema-2.tied"

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
"""Where cmake and ninja may have come from PyPI."""


def tool(name: str) -> str | None:
    """Where a program is, if it is there."""
    return shutil.which(name, path=PATH)


def has_header(compiler: str, header: str) -> bool:
    done = subprocess.run(
        [compiler, "-E", "-x", "c++", "-"],
        input=f"#include <{header}>\n",
        text=True,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@cache
def missing() -> str:
    """What a build with tests needs and this machine lacks, or nothing."""
    lacking = [name for name in ("cmake", "ninja", "c++") if tool(name) is None]
    packages = {
        "hwy/highway.h": "libhwy-dev",
        "gtest/gtest.h": "libgtest-dev",
    }
    if not lacking:
        lacking = [name for header, name in packages.items() if not has_header("c++", header)]
    return f"building the C++ library needs {', '.join(lacking)}" if lacking else ""


needs_cpp = pytest.mark.skipif(bool(missing()), reason=missing())


def call(*words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "PATH": PATH, **(env or {})},
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        command = " ".join(str(word) for word in words)
        pytest.fail(f"{command}\nexits with {done.returncode}:\n{done.stdout[-12000:]}", False)
    return done.stdout


def configure(folder: Path, *options: str, source: Path = ROOT) -> None:
    """Configure a build; one that another source or generator left there is begun anew."""
    marker = folder / "CMakeCache.txt"
    home = f"CMAKE_HOME_DIRECTORY:INTERNAL={source}"
    if marker.exists() and home not in marker.read_text().splitlines():
        shutil.rmtree(folder)
    call("cmake", "-G", "Ninja", "-S", source, "-B", folder, *options)


def jobs() -> int:
    return len(os.sched_getaffinity(0))


def build(folder: Path, *targets: str) -> None:
    call("cmake", "--build", folder, "-j", jobs(), *(["--target", *targets] if targets else []))


@cache
def installed(kind: str) -> Path:
    """Where the optimised library is installed: "shared" or "static".

    Both come from one build folder: they differ in how the same objects are put together.
    """
    folder, prefix = BUILDS / "cpp-release", BUILDS / f"cpp-{kind}"
    configure(
        folder,
        f"-DTIEDEXPORT_SHARED={'ON' if kind == 'shared' else 'OFF'}",
        "-DTIEDEXPORT_TESTS=ON",
        "-DTIEDEXPORT_WERROR=ON",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    build(folder, "tiedexport", "tiedexport-run")
    shutil.rmtree(prefix, ignore_errors=True)
    call("cmake", "--install", folder, "--prefix", prefix)
    return prefix
