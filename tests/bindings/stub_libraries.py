"""Libraries that stand in for TensorRT's, so that its Python bindings import without it."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = ("cc", "readelf", "nm")


def missing_tools() -> list[str]:
    """The programs of the C compiler's package that are not here."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def make(extension: Path, folder: Path) -> None:
    """Build every NVIDIA library that an extension module names, with every function that it calls.

    The functions return null: enough to import the module and to look at its classes.
    """
    dynamic = _output("readelf", "--dynamic", str(extension))
    libraries = re.findall(r"NEEDED.*\[(libnv.*)\]", dynamic)
    assert libraries, f"{extension} needs no library of TensorRT: what is it?"
    undefined = _output("nm", "--dynamic", "--undefined-only", str(extension))
    # TensorRT's C functions have no version behind their names, as libc's have.
    names = re.findall(r"^\s+U (\w*(?:Nv|Infer|Plugin)\w*)$", undefined, re.MULTILINE)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    for library in libraries:
        options = ("-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library))
        _output("cc", *options, str(source))


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
