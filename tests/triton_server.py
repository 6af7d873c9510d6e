"""The real Triton Inference Server on a CPU, on 127.0.0.1, for as long as a `with` block lasts.

`make test` installs it from the wheel of nvidia-pytriton, which has the python backend alone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHEEL = Path(sys.prefix, "triton")
_SERVER = _WHEEL / "pytriton/tritonserver"
_STUB = _SERVER / "python_backend_stubs/{}.{}/triton_python_backend_stub".format(
    *sys.version_info[:2]
)
_START_S, _STOP_S = 120, 30
_TRIES = 3


def _absent() -> str:
    """Why the server cannot start here; or ""."""
    if not (_SERVER / "bin/tritonserver").is_file():
        return "`make test` found no wheel of nvidia-pytriton 0.7.0 for this machine"
    if not _STUB.is_file():
        return f"the server has no python backend for Python {platform.python_version()}"
    if _library_of_python() is None:
        return "this Python has no shared library"
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        return f"the server needs glibc 2.35, here is {libc} {version}"
    return ""


def _library_of_python() -> Path | None:
    """The folder of libpython, which the python backend's process loads."""
    name = "libpython{}.{}.so.1.0".format(*sys.version_info[:2])
    folders = (sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LIBPL"))
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (*folders, f"/usr/lib/{multiarch}"):
        if folder and Path(folder, name).is_file():
            return Path(folder)
    return None


needs_triton = pytest.mark.skipif(bool(_absent()), reason=f"Triton: {_absent()}")
"""The server was installed, and runs this Python."""


@dataclass(frozen=True)
class TritonServer:
    """A running server: addresses as tritonclient takes them, and its process id."""

    http: str
    grpc: str
    pid: int

    @property
    def processes(self) -> list[int]:
        """The server and every process below it: one a model instance."""
        found = [self.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found += map(int, children.read_text().split())
        return found


@contextlib.contextmanager
def triton_server(repository: Path, folder: Path, *options: str) -> Iterator[TritonServer]:
    """Start the server on a model repository, wait until all of it is ready, and stop it.

    Its log goes where this process writes, so that pytest shows it with a test that fails.

    Args:
        repository: the folder of models.
        folder: a folder for what the server needs on disk.
        options: more of tritonserver's own.

    Raises:
        AssertionError: it did not become ready.
    """
    backends = _backends(folder)
    for _ in range(_TRIES):  # another process may take a port between its choice and its use
        http, grpc = _free_ports()
        regions = f"tiedexport_{os.getpid()}_{http}_"
        process = _started(repository, backends, http, grpc, regions, options)
        try:
            if _ready(process, http):
                yield TritonServer(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", process.pid)
                return
        finally:
            _stop(process, regions)
    raise AssertionError(f"the server did not become ready, exit status {process.returncode}")


def _started(
    repository: Path, backends: Path, http: int, grpc: int, regions: str, options: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    """The server with free ports; its processes a group of their own."""
    command = [
        *(_SERVER / "bin/tritonserver", f"--model-repository={repository}"),
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
        *("--allow-metrics=false", "--allow-sagemaker=false", "--allow-vertex-ai=false"),
        *(f"--backend-directory={backends}", "--exit-timeout-secs=10"),
        f"--backend-config=python,shm-region-prefix-name={regions}",
        *("--log-info=false", *options),
    ]
    # The interpreter of the environment is the first python3 on PATH: the backend's process takes
    # its packages from there.
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{_WHEEL / 'nvidia_pytriton.libs'}:{_library_of_python()}",
        "PATH": f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(command, env=environment, start_new_session=True)


def _backends(folder: Path) -> Path:
    """The python backend with the stub of this Python, in one folder as the server wants them."""
    backend = folder / "backends/python"
    if not backend.exists():
        shutil.copytree(_SERVER / "backends/python", backend)
        shutil.copy2(_STUB, backend)
    return backend.parent


def _free_ports() -> tuple[int, int]:
    """Two ports that the system holds free."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _ready(process: subprocess.Popen[bytes], http: int) -> bool:
    """Whether the server became ready; not where it ended instead."""
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            url = f"http://127.0.0.1:{http}/v2/health/ready"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes], regions: str) -> None:
    """End the server, what is left of its group, and its regions of shared memory."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for region in Path("/dev/shm").glob(f"{regions}*"):
        region.unlink(missing_ok=True)
