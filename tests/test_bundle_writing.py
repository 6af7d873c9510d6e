"""A bundle appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tiedexport.bundle import (
    MANIFEST,
    Bundle,
    open_bundle,
    staging_directory,
    write_manifest,
)
from tiedexport.errors import UsageError
from tiedexport.manifest import FileRecord
from tiedexport.spec import Precision

# Writing.


def write_bundle(target: Path, like: Bundle, content: bytes) -> None:
    with staging_directory(target) as staging:
        (staging / "payload").write_bytes(content)
        (staging / "nested").mkdir()
        (staging / "nested" / "payload").write_bytes(content)
        write_manifest(staging, lambda files: replaced(like, files))


def replaced(like: Bundle, files: dict[str, FileRecord]):
    graphs = {stage.name: "payload" for stage in like.manifest.stages}
    return msgspec.structs.replace(
        like.manifest,
        files=files,
        golden="payload",
        weights={Precision.FP32: "payload"},
        graphs={Precision.FP32: graphs},
    )


def test_a_bundle_appears_whole_and_leaves_no_litter(tmp_path: Path, dense_bundle: Bundle):
    target = tmp_path / "new folder" / "b.tied"
    write_bundle(target, dense_bundle, b"first")
    assert set(open_bundle(target).manifest.files) == {"payload", "nested/payload"}
    assert os.listdir(target.parent) == ["b.tied"]
    assert (target / "payload").stat().st_mode & 0o777 == 0o644
    assert target.stat().st_mode & 0o777 == 0o755


def test_an_old_bundle_is_replaced(tmp_path: Path, dense_bundle: Bundle):
    target = tmp_path / "b.tied"
    write_bundle(target, dense_bundle, b"first")
    write_bundle(target, dense_bundle, b"second")
    open_bundle(target)
    assert (target / "payload").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["b.tied"]


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path, dense_bundle: Bundle):
    target, link = tmp_path / "v1.tied", tmp_path / "current.tied"
    write_bundle(target, dense_bundle, b"first")
    link.symlink_to(target.name)
    write_bundle(link, dense_bundle, b"second")
    assert link.is_symlink()
    assert (target / "payload").read_bytes() == b"second"
    assert sorted(os.listdir(tmp_path)) == ["current.tied", "v1.tied"]


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_bundle_whole_and_no_litter(
    failure: BaseException, tmp_path: Path, dense_bundle: Bundle
):
    target = tmp_path / "b.tied"
    write_bundle(target, dense_bundle, b"first")

    def fail_halfway() -> None:
        with staging_directory(target) as staging:
            (staging / "payload").write_bytes(b"second")
            raise failure

    with pytest.raises(type(failure)):
        fail_halfway()
    open_bundle(target)
    assert (target / "payload").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["b.tied"]


def _folder_of_another_program(path: Path) -> None:
    path.mkdir()
    (path / MANIFEST).write_text('{"name": "a browser extension"}')


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "chapter").write_text("years of work")


def _link_to_nothing_of_ours(path: Path) -> None:
    _folder(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "make",
    [_folder, _folder_of_another_program, _link_to_nothing_of_ours, Path.touch, Path.mkdir],
)
def test_what_is_no_bundle_is_not_replaced(make, tmp_path: Path):
    target = tmp_path / "thesis"
    make(target)
    before = sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="no bundle"), staging_directory(target):
        pytest.fail("it would have been written")
    assert sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["NOTES.txt", "nested/NOTES.txt", "new/NOTES.txt", "link"])
def test_a_bundle_with_a_file_of_someone_else_in_it_is_not_replaced(
    name: str, tmp_path: Path, dense_bundle: Bundle
):
    target = tmp_path / "b.tied"
    write_bundle(target, dense_bundle, b"first")
    (target / name).parent.mkdir(exist_ok=True)
    if name == "link":
        (target / name).symlink_to(tmp_path)
    else:
        (target / name).write_text("mine")
    with pytest.raises(UsageError, match="not its own") as caught:
        write_bundle(target, dense_bundle, b"second")
    assert caught.value.got == name
    assert (target / "payload").read_bytes() == b"first"


def test_a_bundle_with_a_damaged_file_is_replaced(tmp_path: Path, dense_bundle: Bundle):
    target = tmp_path / "b.tied"
    write_bundle(target, dense_bundle, b"first")
    (target / "payload").write_bytes(b"damaged")
    write_bundle(target, dense_bundle, b"second")
    open_bundle(target)


def test_a_bundle_whose_manifest_was_altered_is_not_replaced(tmp_path: Path, dense_bundle: Bundle):
    target = tmp_path / "b.tied"
    write_bundle(target, dense_bundle, b"first")
    with (target / MANIFEST).open("ab") as file:
        file.write(b" ")
    with pytest.raises(UsageError, match="no bundle"):
        write_bundle(target, dense_bundle, b"second")


def test_a_kill_in_the_middle_leaves_the_old_bundle_whole(tmp_path: Path, dense_bundle: Bundle):
    target = tmp_path / "b.tied"
    write_bundle(target, dense_bundle, b"first")
    program = (
        "import os, pathlib, signal, sys\n"
        "from tiedexport.bundle import staging_directory\n"
        "with staging_directory(pathlib.Path(sys.argv[1])) as staging:\n"
        "    (staging / 'payload').write_bytes(b'second')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    open_bundle(target)
    assert (target / "payload").read_bytes() == b"first"
