"""The C++ tests: as users get the library, and under the compiler's sanitizers; and the fuzzer."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest
from cpp_builds import BUILDS, ROOT, build, call, configure, jobs, needs_cpp, tool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_cpp
CPP = ROOT / "tiedexport" / "cpp"

WITHOUT_THREADS = ";".join(
    path.stem
    for path in CPP.glob("tests/*_test.cc")
    if not re.search(r"thread|\bPool\b|tile_case\.hpp", path.read_text())
)
"""Tests in which the thread sanitizer has nothing to find, and which take a minute to compile: they
start no thread, have no pool, and do not include the one header that has."""

OPTIONS = {
    "release": ["-DCMAKE_BUILD_TYPE=Release", "-DTIEDEXPORT_SHARED=ON"],
    # Without NDEBUG, and a little optimised: kernels that are not take minutes.
    "address": ["-DTIEDEXPORT_SANITIZE=address,undefined"],
    "thread": ["-DTIEDEXPORT_SANITIZE=thread", f"-DTIEDEXPORT_TESTS_LEFT_OUT={WITHOUT_THREADS}"],
}
SLOW = "-*ASampleDoesNotDependOnThreadsOrBatch/scalar_*:*IsWithinItsRoundingsOfFloat64/simd0_*"
"""Scalar kernels over large grids, which take minutes where every access is checked."""
SANITIZED = ["-DCMAKE_BUILD_TYPE=Sanitized", "-DCMAKE_CXX_FLAGS=-O1 -g1", "-DTIEDEXPORT_TOOLS=OFF"]


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_cpp_tests_pass(kind: str) -> None:
    folder = BUILDS / f"cpp-{kind}"
    extra = [] if kind == "release" else SANITIZED
    configure(folder, *OPTIONS[kind], *extra, "-DTIEDEXPORT_TESTS=ON", "-DTIEDEXPORT_WERROR=ON")
    build(folder)
    # The thread sanitizer of GCC 12 gives up where the kernel puts addresses at random too far.
    fixed_addresses = ["setarch", "-R"] if kind == "thread" and tool("setarch") else []
    env = {"OMP_NUM_THREADS": "1", "GTEST_FILTER": "*" if kind == "release" else SLOW}
    options = ["--no-tests=error", "--output-on-failure", "-j", jobs()]
    listed = call(*fixed_addresses, "ctest", "--test-dir", folder, *options, env=env)
    found = re.search(r"100% tests passed(?:, 0 tests failed)? out of (\d+)", listed)
    assert found is not None, listed
    assert int(found[1]) >= 10


@cache
def missing_fuzzer() -> str:
    """Why the fuzzer cannot be built, or nothing."""
    if tool("clang++") is None or tool("clang") is None:
        return "clang is missing; apt-get install clang"
    done = subprocess.run(
        ["clang++", "-fsanitize=fuzzer,address", "-x", "c++", "-", "-o", "/dev/null"],
        input='extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }',
        text=True,
        capture_output=True,
        check=False,
    )
    return "clang's libFuzzer is missing; apt-get install libclang-rt-dev" * bool(done.returncode)


@pytest.mark.skipif(bool(missing_fuzzer()), reason=missing_fuzzer())
def test_a_minute_of_hostile_files_finds_nothing(tmp_path: Path) -> None:
    folder = BUILDS / "cpp-fuzz"
    configure(
        folder,
        "-DCMAKE_C_COMPILER=clang",
        "-DCMAKE_CXX_COMPILER=clang++",
        "-DTIEDEXPORT_FUZZ=ON",
        "-DTIEDEXPORT_TOOLS=OFF",
    )
    build(folder, "bundle_fuzz")
    (fuzzer,) = (path for path in folder.rglob("bundle_fuzz") if path.is_file())
    corpus = shutil.copytree(CPP / "fuzz" / "corpus", tmp_path / "corpus")
    seeds = len(list(corpus.iterdir()))
    words = [f"-artifact_prefix={tmp_path}/", "-max_total_time=60", "-timeout=10", "-verbosity=1"]
    said = call(
        fuzzer, *words, "-rss_limit_mb=2048", f"-dict={CPP}/fuzz/bundle.dict", corpus, cwd=tmp_path
    )
    found = re.search(r"Done (\d+) runs in", said)
    assert found is not None, said
    assert int(found[1]) > 100 * seeds
