"""What is installed: a wheel of any Python that holds the library, or a package without it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tiedexport import __version__, native_library

if TYPE_CHECKING:
    from typing import Any

    from tiedexport.bundle import Bundle

ROOT = Path(__file__).parent.parent
PURE = f"tiedexport-{__version__}-py3-none-any.whl"

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not native_library.has_highway(),
    reason="no g++, or no headers of Highway",
)


def done(*command: object, **options: Any) -> str:
    """Run a command that must succeed; what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTHON"))}
    environment.pop(native_library.VARIABLE, None)
    environment |= options.pop("env", {})
    finished = subprocess.run(
        [str(word) for word in command], env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheel` builds."""
    folder = tmp_path_factory.mktemp("dist")
    done("make", "--no-print-directory", "wheel", f"VENV={sys.prefix}", f"DIST={folder}", cwd=ROOT)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    done(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    done(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return python


@needs_compiler
def test_the_wheel_is_portable_and_of_any_python_3(wheel: Path):
    assert re.fullmatch(
        rf"tiedexport-{__version__}-py3-none-(manylinux_2_\d+_\w+\.?)+whl", wheel.name
    )
    shown = done(sys.executable, "-m", "auditwheel", "show", wheel)
    assert 'following platform tag: "manylinux_2_' in " ".join(shown.split())
    needed = re.findall(r"\blib[\w+-]+\.so[\w.]*", shown)
    assert set(needed) <= {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6"}
    assert "libstdc++.so.6" in needed


@needs_compiler
def test_the_wheel_holds_the_package_the_recipes_and_one_library(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        archive.extractall(tmp_path)
    package = ROOT / "tiedexport"
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.suffix in (".py", ".css", ".html", ".js", ".txt", ".typed")
        if "cpp" not in path.relative_to(package).parts
    }
    recipes = {f"tiedexport/models/{path.name}" for path in (ROOT / "models").glob("*.toml")}
    held = {name for name in names if name.startswith("tiedexport/")}
    assert held == tracked | recipes | {"tiedexport/lib/libtiedexport.so"}
    exported = done("nm", "-D", "--defined-only", tmp_path / "tiedexport/lib/libtiedexport.so")
    symbols = {line.split()[-1] for line in exported.splitlines()}
    assert {name for name in symbols if not name.startswith("tiedexport_")} == set()
    assert native_library._FUNCTIONS.keys() <= symbols


@needs_compiler
def test_the_wheel_runs_a_bundle_with_numpy_only(python: Path, dense_bundle: Bundle):
    code = (
        "import numpy as np, sys, tiedexport\n"
        f"with tiedexport.open_session({str(dense_bundle.path)!r}, threads=1) as session:\n"
        "    golden = session.bundle.golden\n"
        "    found = session.reconstruct(golden['input'].astype('f4'))\n"
        "    print(session.runtime, np.abs(found - golden['reconstruction']).max() < 1e-5)\n"
        "print('onnxruntime' in sys.modules, tiedexport.__file__)"
    )
    shown = done(python, "-c", code, cwd=python.parent).split()
    assert shown[:3] == ["native", "True", "False"]
    assert shown[3].startswith(str(python.parent.parent))
    assert "native" in done(python, "-m", "tiedexport", "doctor", cwd=python.parent)


def test_without_a_compiler_the_package_installs_and_says_what_is_missing(
    tmp_path: Path, dense_bundle: Bundle
):
    nothing = {"CC": "/nowhere/cc", "CXX": "/nowhere/c++"}
    shown = done(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--verbose",
        "--disable-pip-version-check", "--target", tmp_path / "site", ".", cwd=ROOT, env=nothing,
    )  # fmt: skip
    assert PURE in shown
    assert "tiedexport was built without its native runtime" in shown
    assert "apt-get install g++ libhwy-dev" in shown
    installed = tmp_path / "site" / "tiedexport"
    assert (installed / "models" / "digits.toml").exists()
    assert not (installed / "lib").exists()
    # Only this package's own folder: the one that is tested must not stand in for it.
    code = (
        f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if isinstance(f, type)]\n"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import tiedexport; from tiedexport.runtimes import runtime_named\n"
        f"assert tiedexport.__path__ == [{str(installed)!r}], tiedexport.__path__\n"
        "print(runtime_named('native').availability().why)\n"
        f"print(tiedexport.open_session({str(dense_bundle.path)!r}).runtime)"
    )
    said, runtime = done(sys.executable, "-c", code, cwd=tmp_path).strip().splitlines()
    assert said.startswith("not built when tiedexport was installed; this machine ")
    assert runtime == "onnxruntime"


@needs_compiler
def test_the_library_was_built_with_the_package_where_it_can_be():
    """So that no test of the native runtime is skipped unnoticed."""
    native_library.load()
