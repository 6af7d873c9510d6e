"""Strangers' projects embed the library: by find_package, add_subdirectory, pkg-config, from C."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cpp_builds import BUILDS, BUNDLE, ROOT, build, call, configure, installed, needs_cpp, tool

from tiedexport.bundle import open_bundle

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_cpp
CONSUMERS = ROOT / "tests" / "consumers"


@pytest.fixture(params=["shared", "static"])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the library lies, moved from where it was installed."""
    return shutil.copytree(installed(request.param), tmp_path / "moved", symlinks=True)


def check_reconstruction(consumer: Path, folder: Path, prefix: Path | None = None) -> None:
    """Run a consumer on the golden input; judge it by the golden output and its derived bound."""
    golden = np.load(BUNDLE / "golden.npz")
    golden["input"].tofile(folder / "input.f32")
    env = (
        {"LD_LIBRARY_PATH": str(next(prefix.glob("lib*/**/libtiedexport.*")).parent)}
        if prefix
        else {}
    )
    call(consumer, BUNDLE, folder / "input.f32", folder / "output.f32", env=env)
    out = np.fromfile(folder / "output.f32", np.float32).reshape(golden["input"].shape)
    (bound,) = [
        one.largest_bound
        for one in open_bundle(BUNDLE).manifest.tolerances
        if (one.stage, one.precision) == ("autoencoder", "fp32")
    ]
    np.testing.assert_allclose(out, golden["reconstruction"], rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["find_package", "c"])
def test_an_installed_library_is_found(name: str, prefix: Path, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    configure(folder, f"-DCMAKE_PREFIX_PATH={prefix}", source=CONSUMERS / name)
    build(folder)
    check_reconstruction(folder / "consumer", tmp_path)


def test_another_release_is_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(CONSUMERS / "find_package", source)
    lists = source / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("tiedexport 0.1", "tiedexport 7.0"))
    words = ["-S", source, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed('shared')}"]
    done = subprocess.run(
        [str(tool("cmake")), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert 'compatible with requested version "7.0"' in " ".join(done.stderr.split())


@pytest.mark.skipif(tool("pkg-config") is None, reason="pkg-config is missing")
@pytest.mark.parametrize("flags", ["", "--static"])
def test_pkg_config_has_what_linking_needs(prefix: Path, flags: str, tmp_path: Path) -> None:
    source = shutil.copytree(CONSUMERS / "pkgconfig", tmp_path / "source")
    (pc,) = prefix.rglob("tiedexport.pc")
    env = {"PKG_CONFIG_PATH": str(pc.parent)}
    call("make", "-C", source, f"PKG_CONFIG_FLAGS={flags}", env=env)
    check_reconstruction(source / "consumer", tmp_path, prefix)


def test_the_source_is_part_of_another_project(tmp_path: Path) -> None:
    """Whose build the library does not disturb; CMake checks what must not leak."""
    folder = BUILDS / "cpp-add-subdirectory"
    configure(folder, f"-DTIEDEXPORT_SOURCE={ROOT}", source=CONSUMERS / "add_subdirectory")
    build(folder)
    check_reconstruction(folder / "consumer", tmp_path)
    call("cmake", "--install", folder, "--prefix", tmp_path / "prefix")
    files = [path.name for path in (tmp_path / "prefix").rglob("*") if path.is_file()]
    assert files == ["consumer"]
