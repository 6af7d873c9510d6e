"""Files and directories that appear whole and synced, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_STAGED, _ASIDE = ".new", ".old"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, beside `path`, whose place it takes when the block ends without an error.

    Missing parents are made, a link stays a link, the mode is what the umask leaves. A pipe or a
    device, such as /dev/stdout, has no place to take: it is written as it stands.

    Raises:
        OSError: it cannot be written; names the file even where the disk is full.
    """
    with _naming(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = _beside(target, _STAGED)
        try:
            with staged.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            move(staged, target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def write(path: Path, content: bytes) -> None:
    """Make `content` all that the file holds; as `replacing` otherwise."""
    with replacing(path) as file:
        file.write(content)


def move(source: Path, target: Path) -> None:
    """Give a file that is synced the place of another, for good: its new folder is synced too.

    Raises:
        OSError: it cannot be moved.
    """
    source.replace(target)
    _sync(target.parent)


def link(source: Path, target: Path) -> None:
    """Let `target` name the file `source` too, or a copy where the file system cannot.

    Missing parents are made. What `target` named before is left as it is: it may have other names.

    Raises:
        OSError: it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        copy(source, target)


def copy(source: Path, target: Path) -> None:
    """Make `target` a file of the same content; missing parents are made.

    Raises:
        OSError: it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _naming(target):
        shutil.copyfile(source, target)


@contextlib.contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, beside `target`, whose place it takes when the block ends well.

    A kill leaves the old directory or the new one. Only where the file system cannot exchange two
    names is there a moment with neither: the old one then lies beside as `.NAME.*.old`, and the
    next call for this target puts it back. The same call removes what killed ones left, where the
    file system has `flock`, which tells the dead from the living.

    Raises:
        OSError: it cannot be written; names the target even where the disk is full.
    """
    target = target.resolve()
    staging = _beside(target, _STAGED)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_naming(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent):  # until its own lock shows that the staging one is in use
            _tidy(target)
            staging.mkdir()
            stack.enter_context(locked(staging))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        yield staging
        readable_by = staging.stat().st_mode & 0o666  # what the umask left of everyone
        for path in (*staging.rglob("*"), staging):
            if path.is_file():
                path.chmod(readable_by)  # safetensors, for one, lets nobody but the writer read
            _sync(path)
        with locked(target.parent):
            _take_place(staging, target)
        _sync(target.parent)


def _take_place(staging: Path, target: Path) -> None:
    """Rename; an old directory ends up under the name of the staging one."""
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        aside = staging.with_suffix(_ASIDE)
        target.rename(aside)
        try:
            staging.rename(target)
        except OSError:
            aside.rename(target)
            raise
        aside.rename(staging)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, or say that this system or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    at_cwd, exchange = -100, 2
    if libc.renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _tidy(target: Path) -> None:
    """Put back or remove what killed calls left; a living one holds the lock of its directory."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}({_STAGED}|{_ASIDE})")
    for path in list(target.parent.iterdir()):
        if not ours.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        with locked(path, wait=False) as held:
            if held and path.suffix == _ASIDE and not target.exists():
                path.rename(target)
            elif held:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a directory's lock, which ends with the process; yields whether it could be had.

    Raises:
        OSError: there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:  # a living process has it, or (NFS) a directory cannot be locked
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A failed write of Python carries no file name: give it one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{suffix}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
