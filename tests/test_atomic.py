"""Files and directories appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiedexport import atomic


@contextmanager
def umask(mask: int):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def fill(target: Path, content: bytes) -> None:
    with atomic.replacing_directory(target) as staging:
        (staging / "nested").mkdir()
        (staging / "nested" / "payload").write_bytes(content)
        (staging / "nested" / "payload").chmod(0o600)  # as some libraries leave their files


def content_of(target: Path) -> bytes:
    return (target / "nested" / "payload").read_bytes()


def killed_while(target: Path, moment: str) -> None:
    """Replace `target` in a process that is killed at `moment`, a line of Python."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from tiedexport import atomic\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{moment}\n"
        "with atomic.replacing_directory(pathlib.Path(sys.argv[1])) as staging:\n"
        "    (staging / 'nested').mkdir()\n"
        "    (staging / 'nested' / 'payload').write_bytes(b'killed')\n"
        "    if not atomic_dies_later: die()\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL


IN_THE_BLOCK = "atomic_dies_later = False"
BEFORE_THE_EXCHANGE = "atomic_dies_later = True; atomic._take_place = die"
BETWEEN_TWO_RENAMES = (
    "atomic_dies_later = True; atomic._exchange = lambda *_: False; rename = pathlib.Path.rename; "
    "pathlib.Path.rename = lambda a, b: (rename(a, b), die())"
)


# Files.


def test_a_file_is_written_with_its_parents_and_leaves_no_litter(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "x.bin"
    atomic.write(path, b"first")
    atomic.write(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["x.bin"]


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_litter(failure: BaseException, tmp_path: Path):
    path = tmp_path / "x.bin"
    atomic.write(path, b"first")

    def fail_halfway() -> None:
        with atomic.replacing(path) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail_halfway()
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_the_old_file_stands_until_the_new_one_is_synced(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.bin"
    atomic.write(path, b"first")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.read_bytes()))
    atomic.write(path, b"second")
    assert seen == [b"first", b"second"]  # the file's own bytes, then the name in its folder


def test_a_link_to_a_file_stays_a_link(tmp_path: Path):
    target, link = tmp_path / "v1.bin", tmp_path / "current.bin"
    atomic.write(target, b"first")
    link.symlink_to(target.name)
    atomic.write(link, b"second")
    assert link.is_symlink()
    assert target.read_bytes() == b"second"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(mask: int, mode: int, tmp_path: Path):
    with umask(mask):
        atomic.write(tmp_path / "x.bin", b"")
        fill(tmp_path / "d", b"")
    assert (tmp_path / "x.bin").stat().st_mode & 0o777 == mode
    assert (tmp_path / "d" / "nested" / "payload").stat().st_mode & 0o777 == mode
    for folder in (tmp_path / "d", tmp_path / "d" / "nested"):
        assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_pipe_is_written_as_it_stands(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    atomic.write(pipe, b"through")
    reader.join()
    assert received == [b"through"]
    assert pipe.is_fifo()


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="No space") as caught:
        atomic.write(Path("/dev/full"), b"x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


def test_a_full_disk_is_named_when_a_directory_is_filled(tmp_path: Path):
    def fail() -> None:
        with atomic.replacing_directory(tmp_path / "d"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "d")
    assert os.listdir(tmp_path) == []


# Directories.


@pytest.fixture(params=["exchange", "no such call", errno.ENOSYS, errno.EINVAL])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems and file systems that can exchange two names in one step, and that cannot."""
    if request.param == "exchange":
        return

    def renameat2(*_: object) -> int:
        ctypes.set_errno(request.param)
        return -1

    able = {} if request.param == "no such call" else {"renameat2": renameat2}
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(**able))


@pytest.mark.usefixtures("system")
def test_a_directory_is_replaced_whole_and_leaves_no_litter(tmp_path: Path):
    target = tmp_path / "new folder" / "d"
    for content in (b"first", b"second"):
        fill(target, content)
        assert content_of(target) == content
        assert os.listdir(target.parent) == ["d"]


@pytest.mark.usefixtures("system")
def test_the_old_directory_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(tmp_path / "d", b"first")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise PermissionError(errno.EPERM, "not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    with pytest.raises(PermissionError):
        fill(tmp_path / "d", b"second")
    assert content_of(tmp_path / "d") == b"first"
    assert os.listdir(tmp_path) == ["d"]


def test_an_error_of_the_exchange_itself_is_not_hidden(tmp_path: Path, monkeypatch):
    def renameat2(*_: object) -> int:
        ctypes.set_errno(errno.EACCES)
        return -1

    fill(tmp_path / "d", b"first")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=renameat2))
    with pytest.raises(PermissionError) as caught:
        fill(tmp_path / "d", b"second")
    assert caught.value.filename == str(tmp_path / "d")
    assert content_of(tmp_path / "d") == b"first"


# Killed processes.


@pytest.mark.parametrize("moment", [IN_THE_BLOCK, BEFORE_THE_EXCHANGE])
def test_a_kill_leaves_the_old_directory_and_the_next_call_removes_the_litter(
    moment: str, tmp_path: Path
):
    target = tmp_path / "d"
    fill(target, b"first")
    killed_while(target, moment)
    assert content_of(target) == b"first"
    assert len(os.listdir(tmp_path)) == 2
    fill(target, b"second")
    assert content_of(target) == b"second"
    assert os.listdir(tmp_path) == ["d"]


def test_a_kill_between_two_renames_is_mended_by_the_next_call(tmp_path: Path):
    target = tmp_path / "d"
    fill(target, b"first")
    killed_while(target, BETWEEN_TWO_RENAMES)
    assert not target.exists()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".new", ".old"]
    with pytest.raises(RuntimeError), atomic.replacing_directory(target):
        raise RuntimeError("the next call fails for a reason of its own")
    assert content_of(target) == b"first"
    assert os.listdir(tmp_path) == ["d"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path):
    target = tmp_path / "d"
    with atomic.replacing_directory(target) as staging:
        (staging / "payload").write_bytes(b"slow")
        fill(target, b"fast")
        assert (staging / "payload").read_bytes() == b"slow"
    assert os.listdir(target) == ["payload"]
    assert os.listdir(tmp_path) == ["d"]


def test_only_names_of_our_own_making_are_removed(tmp_path: Path):
    names = [".d.0123abcd", ".d.0123abcd.new.bak", ".e.0123abcd.new", ".d.notes.new", "d.old"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".d.00000000.new").write_bytes(b"a file")
    (tmp_path / ".d.11111111.new").symlink_to(tmp_path / "d.old")
    fill(tmp_path / "d", b"first")
    kept = [*names, ".d.00000000.new", ".d.11111111.new", "d"]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_where_directories_cannot_be_locked_nothing_is_taken_for_litter(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.EBADF, "no locks on this file system")

    (tmp_path / ".d.01234567.new").mkdir()
    monkeypatch.setattr(atomic.fcntl, "flock", flock)
    fill(tmp_path / "d", b"first")
    assert content_of(tmp_path / "d") == b"first"
    assert sorted(os.listdir(tmp_path)) == [".d.01234567.new", "d"]
