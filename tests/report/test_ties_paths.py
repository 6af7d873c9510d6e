"""Long paths in the table of stages: the end of each can be read in one piece."""

from __future__ import annotations

import io

import handmade_ties
import pytest
from rich.console import Console

from tiedexport.report import ties_terminal

LONG = "/home/someone/a project/with a long path/models/digits.tied"


def table(subject: str, width: int = 80) -> list[str]:
    stream = io.StringIO()
    result = handmade_ties.audit(handmade_ties.stage("ONNX files", "no tie", subject=subject))
    ties_terminal.print_audit(result, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().partition("\nDoes the tie")[0].splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("remark", ["", ", ONNX Runtime's defaults"])
def test_a_long_path_is_one_piece_with_its_end(width: int, remark: str) -> None:
    (line,) = [line for line in table(f"{LONG}/encoder.onnx{remark}", width) if ".onnx" in line]
    assert line.startswith("  /home/")
    assert "/encoder.onnx" in line
    assert "…" in line or "digits.tied/encoder.onnx" in line


def test_each_of_several_paths_shows_its_end() -> None:
    text = "\n".join(table(f"{LONG}/encoder.onnx, {LONG}/decoder.onnx"))
    assert "/home/…/encoder.onnx," in text
    assert "/home/…/decoder.onnx" in text


def test_as_much_of_the_end_as_fits_is_there() -> None:
    text = "\n".join(table(f"{LONG}/w.onnx"))
    assert "/home/…/digits.tied/w.onnx" in text


@pytest.mark.parametrize("subject", ["models/encoder.onnx", "encoder.onnx", "fp32 memory=packed"])
def test_what_fits_stays_whole(subject: str) -> None:
    assert f"  {subject} " in "\n".join(table(subject))


def test_a_name_that_does_not_fit_itself_is_not_lost() -> None:
    name = f"{'x' * 60}.onnx"
    lines = [line for line in table(f"{LONG}/{name}") if line.startswith("  ")]
    joined = "".join(line.split()[0] for line in lines)
    assert joined.endswith(name)
