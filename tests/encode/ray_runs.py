"""Encode on an embedded Ray, in a process of its own: ray_runs.py BUNDLE FOLDER.

FOLDER holds good.npy and bad.npy; a job of each is begun, and printed as JSON: where Ray listens,
and what the bad one said.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from tiedexport.encode import encode, on_ray
from tiedexport.errors import DataError

HOW: dict[str, Any] = {"runtime": "native", "threads": 1, "batch": 16, "part_rows": 96}


def descendants() -> list[Path]:
    """Of this process, and itself, in /proc."""
    parents = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                status = (process / "stat").read_text()
                parents[process.name] = status.rpartition(")")[2].split()[1]
    found = {str(os.getpid())}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path("/proc", name) for name in found]


def listening() -> list[str]:
    """Addresses on which they listen, as /proc/net/tcp* has them."""
    sockets = set()
    for process in descendants():
        with contextlib.suppress(OSError):
            for descriptor in list((process / "fd").iterdir()):
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(descriptor))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(words[1].partition(":")[0])
    return sorted(found)


def main(bundle: str, folder: Path) -> None:
    """Do both jobs."""
    os.chdir(folder)
    os.environ.setdefault(*on_ray._LOOPBACK)
    on_ray._start(None)
    encode(bundle, ["good.npy"], "on-ray", engine="ray", **HOW)
    try:
        encode(bundle, ["bad.npy"], "bad", engine="ray", **HOW)
        said = ""
    except DataError as error:
        said = str(error)
    found = listening()
    importlib.import_module("ray").shutdown()
    sys.stdout.write("\n" + json.dumps({"said": said, "listening": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
