"""The README's C++ compiles and runs as it is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from conftest import make_checkpoint
from cpp_builds import call, installed, needs_cpp
from test_readme import blocks

from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.session import open_session

if TYPE_CHECKING:
    from pathlib import Path


@needs_cpp
def test_the_embedding_example_is_ten_lines_that_compile_and_run(tmp_path: Path) -> None:
    (code,) = blocks("cpp", "embed-cpp")
    assert len([line for line in code.splitlines() if line]) <= 10
    (tmp_path / "main.cc").write_text(code)
    save_checkpoint(tmp_path / "digits.pt", make_checkpoint("autoencoder", {"widths": [784, 16]}))
    build(tmp_path / "digits.pt", tmp_path / "digits.tied", precision="fp32", target=())
    (library,) = installed("shared").rglob("libtiedexport.so")
    flags = [f"-I{installed('shared') / 'include'}", library, f"-Wl,-rpath,{library.parent}"]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    call("c++", "-std=c++17", *warnings, tmp_path / "main.cc", *flags, "-o", tmp_path / "main")
    said = call(tmp_path / "main", cwd=tmp_path)
    with open_session(tmp_path / "digits.tied", precision="fp32", threads=1) as session:
        pixel = session.reconstruct(np.full((1, 784), 0.5, np.float32))[0, 0]
    found = re.fullmatch(r"16 codes, first pixel (\S+)\n", said)
    assert found is not None, said
    assert abs(float(found[1]) - pixel) < 1e-5
