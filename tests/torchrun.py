"""Scripts in many processes of this host."""

from __future__ import annotations

import os
import subprocess
import sys


def torchrun(processes: int, *arguments: object, max_restarts: int = 0) -> str:
    """Run a script with its arguments, at ports that the system chooses; what was said on stderr.

    Raises:
        AssertionError: a process failed, or died once more than it may be started again.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = [f"--nproc-per-node={processes}", f"--max-restarts={max_restarts}"]
    done = subprocess.run(
        [*command, *options, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
