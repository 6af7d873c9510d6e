"""What importing costs: a deployment target loads no torch and no onnx."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle

HEAVY = {
    "torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "tensorrt", "tensorrt_rtx",
    "polygraphy", "matplotlib", "sklearn", "PIL", "rich", "click", "ml_dtypes",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Top-level names that `code` brought into sys.modules of a fresh process."""
    script = (
        "import sys; before = set(sys.modules); "
        f"{code}; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import tiedexport",
        "import tiedexport; tiedexport.open_bundle; tiedexport.open_session",
        "import tiedexport.session, tiedexport.bundle, tiedexport.runtimes, tiedexport.engines",
    ],
)
def test_importing_the_deploying_side_brings_in_numpy_msgspec_and_safetensors_only(
    code: str,
) -> None:
    allowed = {"tiedexport", "numpy", "msgspec", "safetensors", *sys.stdlib_module_names}
    allowed |= {"typing_extensions"}  # msgspec imports it where it is installed
    extra = modules_after(code) - allowed
    assert not extra, f"{code} also imports {sorted(extra)}"


@pytest.mark.parametrize(
    "module",
    ["audit", "verify", "measure", "run", "encode", "inspect", "doctor", "data", "report",
     "rounding", "view"],
)  # fmt: skip
def test_no_verb_of_the_deploying_side_imports_the_authoring_side(module: str) -> None:
    loaded = modules_after(f"import tiedexport.{module}")
    assert not loaded & {"torch", "onnx", "onnx_ir", "onnxscript", "polygraphy"}


def test_help_loads_nothing_but_click() -> None:
    code = (
        "import contextlib, io, tiedexport.__main__\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    tiedexport.__main__.main(['--help'])\n"
    )
    loaded = modules_after(f"exec({code!r})")
    assert not loaded & (HEAVY - {"click"} | {"numpy", "msgspec", "safetensors"})


@pytest.mark.parametrize("runtime", ["native", "onnxruntime"])
def test_a_session_needs_its_runtime_and_neither_torch_nor_onnx(
    dense_bundle: Bundle, runtime: str
) -> None:
    available = runtime_named(runtime).availability()
    if not available.available:
        pytest.skip(f"{runtime}: {available.why}")
    path = str(dense_bundle.path)
    loaded = modules_after(
        "import numpy, tiedexport; "
        f"s = tiedexport.open_session({path!r}, runtime={runtime!r}, precision='fp32'); "
        "s.encode(numpy.zeros((1, 20), numpy.float32))"
    )
    assert loaded & {
        "onnxruntime",
        "torch",
        "onnx_ir",
        "onnxscript",
        "matplotlib",
        "ml_dtypes",
    } == {module for module in ("onnxruntime",) if module == runtime}
