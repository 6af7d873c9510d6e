"""Results reach their reader whole; a reader who leaves, or a full disk, is no fault of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from tiedexport.__main__ import main
from tiedexport.output import Output
from tiedexport.results import Availability

RESULT = Availability(True, "1.0")
READER_GONE, BAD_INPUT, USAGE = 141, 4, 2


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_json_goes_beside_the_tables_or_in_their_place(tmp_path: Path, capsys):
    for file in (tmp_path / "x.json", Path("-")):
        out = Output(file)
        out.show(RESULT, lambda result: click.echo(f"table of {result.version}"))
        out.say("done")
    tables, _, rest = capsys.readouterr().out.partition("done\n")
    assert tables == "table of 1.0\n"
    assert msgspec.json.decode(rest)["version"] == "1.0"
    assert (tmp_path / "x.json").read_text() == rest


def test_a_failed_write_leaves_the_old_json(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.json"
    Output(path).show(RESULT)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        Output(path).show(Availability(False))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("verb", [["doctor"], ["verify", "x.tied"], ["inspect", "x.tied"]], ids=str)
@pytest.mark.parametrize(("place", "words"), [("no/x.json", "no folder"), ("", "is a folder")])
def test_json_without_a_place_is_refused_before_anything_runs(
    verb: list[str], place: str, words: str, tmp_path: Path, capsys
):
    assert exit_code(*verb, "--json", tmp_path / place) == USAGE
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json", "-"], ["--help"]], ids=str)
def test_a_reader_that_left_ends_a_command_quietly_as_it_ends_other_tools(arguments: list[str]):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tiedexport", *arguments],
            stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (READER_GONE, "")


def test_a_full_disk_is_named(capsys):
    assert exit_code("doctor", "--json", "/dev/full") == BAD_INPUT
    assert capsys.readouterr().err == "error: No space left on device: /dev/full\n"


def test_a_full_standard_output_is_named():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tiedexport", "doctor"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == BAD_INPUT
    assert done.stderr == "error: No space left on device: standard output\n"
