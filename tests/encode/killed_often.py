"""Encode in children that are killed at random moments, until enough were killed.

python killed_often.py BUNDLE INPUT FOLDER KILLS: writes FOLDER/undisturbed* once, then jobs
FOLDER/0*, FOLDER/1*, ... each begun again until it is done, and prints how many were killed.

A child is a fork of this process, which has loaded what they need and done nothing with it: so a
life begins in a moment, and a kill falls into the work.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from tiedexport import encode
from tiedexport.runtimes import all_runtimes

LONGEST_WAIT_S = 0.02
CHANCE = random.Random(0)


def child(bundle: str, source: str, output: Path) -> int:
    """Begin one life."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        encode.encode(
            bundle, [source], output, runtime="native", threads=1, batch=64, on_error="skip",
            part_rows=150,
        )  # fmt: skip
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def lines(output: Path) -> int:
    """How many parts are recorded as done."""
    folder = output.with_name(f"{output.name}.job") if output.suffix else output
    record = folder / "_done" / "0-of-1.jsonl"
    return record.read_bytes().count(b"\n") if record.exists() else 0


def killed(pid: int, output: Path, *, early: bool) -> bool:
    """Kill a child at a random moment: as it begins, or after it has done a part.

    Raises:
        SystemExit: it failed by itself.
    """
    before = lines(output)
    status = 0
    found = 0
    while not (found or early or lines(output) > before):
        found, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.0005)
    if not found:
        time.sleep(CHANCE.uniform(0, LONGEST_WAIT_S))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        raise SystemExit("a call failed by itself")
    return os.WIFSIGNALED(status)


def main(bundle: str, source: str, folder: Path, wanted: int) -> None:
    """Do jobs until as many children were killed."""
    importlib.import_module("pyarrow.parquet")
    all_runtimes()
    for suffix in ("", ".npy"):
        _, status = os.waitpid(child(bundle, source, folder / f"undisturbed{suffix}"), 0)
        assert status == 0
    kills = jobs = 0
    while kills < wanted or jobs < 2:
        output = folder / f"{jobs}{'.npy' if jobs % 2 else ''}"
        # A third die young: the others get on, however slow the machine is.
        while killed(child(bundle, source, output), output, early=kills % 3 == 0):
            kills += 1
        jobs += 1
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
