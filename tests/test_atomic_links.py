"""Further names of a file, and copies of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tiedexport import atomic


def test_a_link_is_one_more_name_and_a_copy_another_file(tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"content")
    atomic.link(source, tmp_path / "new" / "link")
    atomic.copy(source, tmp_path / "newer" / "copy")
    assert (tmp_path / "new" / "link").samefile(source)
    assert not (tmp_path / "newer" / "copy").samefile(source)
    assert (tmp_path / "newer" / "copy").read_bytes() == b"content"


def test_a_link_leaves_the_other_names_of_what_it_replaces_alone(tmp_path: Path):
    old, other, new = (tmp_path / name for name in ("old", "other", "new"))
    old.write_bytes(b"old")
    other.hardlink_to(old)
    new.write_bytes(b"new")
    for _ in range(2):
        atomic.link(new, old)
        assert (old.read_bytes(), other.read_bytes(), new.read_bytes()) == (b"new", b"old", b"new")


def test_where_the_file_system_has_no_links_a_copy_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"content")
    target.write_bytes(b"before")
    atomic.link(source, target)
    assert target.read_bytes() == b"content"
    assert not target.samefile(source)
