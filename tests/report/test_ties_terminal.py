"""Audits and reties on a terminal: readable at 80 columns and at 40, and never a flood."""

from __future__ import annotations

import io

import handmade_ties
import msgspec
import pytest
from rich.console import Console

from tiedexport.report import ties_terminal

AUDITS = {
    "healthy": handmade_ties.healthy(),
    "healthy, 50 layers": handmade_ties.healthy(50),
    "untied": handmade_ties.untied(),
    "untied, 50 layers": handmade_ties.untied(50, whole=30),
    "module": handmade_ties.module(),
    "nothing ran": handmade_ties.audit(handmade_ties.not_run("ONNX files")),
}
RETIES = {
    "mended": handmade_ties.retied(),
    "mended, 50 layers": handmade_ties.retied(50),
    "not proven": handmade_ties.retied(
        0,
        outputs=(),
        left=handmade_ties.LEFT,
        proposals=handmade_ties.PROPOSALS,
        proof="not proven",
        proof_detail="onnxruntime: com.acme:Swish(-1) is not a registered function/op",
    ),
    "failed": handmade_ties.retied(outputs=(), proof="failed", proof_detail="output y differs"),
}
CODE = "x = F.linear(z, self.encoder.weight.t(), self.decoder_bias)  # one Parameter, used twice"


def printed(result, width: int = 80, *, tty: bool = False, **options) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=tty, highlight=False, **options)
    retie = isinstance(result, handmade_ties.RetieResult)
    (ties_terminal.print_retie if retie else ties_terminal.print_audit)(result, console)
    return stream.getvalue()


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("result", [*AUDITS.values(), *RETIES.values()], ids=[*AUDITS, *RETIES])
def test_everything_but_code_to_copy_fits_the_width(result, width):
    code = {line for finding in handmade_ties.FINDINGS for line in finding.instead.splitlines()}
    lines = [line for line in printed(result, width).splitlines() if line.strip() not in code]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("result", [*AUDITS.values(), *RETIES.values()], ids=[*AUDITS, *RETIES])
def test_in_a_pipe_the_text_is_plain_and_on_a_terminal_it_has_colours(result):
    assert "\x1b" not in printed(result)
    assert not set(printed(result)) & set("─│┃━╭╰")
    assert "\x1b[3" in printed(result, tty=True, color_system="standard")
    assert "\x1b[3" not in printed(result, tty=True, no_color=True, color_system="standard")


@pytest.mark.parametrize("width", [80, 40])
def test_no_word_of_the_table_of_stages_is_broken(width):
    table = printed(handmade_ties.healthy(), width).split("\n\n")[0]
    words = set(table.split())
    for stage in handmade_ties.healthy().stages:
        assert words >= set(stage.name.split())
        assert words >= set(stage.status.split())


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("healthy", "yes: one copy at every stage that ran"),
        ("untied", "no: more than one copy in ONNX files"),
        ("module", "no: more than one copy in Python parameters; 1 mistake in the module"),
        ("nothing ran", "–: nothing could be measured here"),
    ],
)
def test_the_last_words_are_the_verdict(name, verdict):
    assert one_line(printed(AUDITS[name])).endswith(f"Does the tie hold? {verdict}")


def test_a_lost_tie_is_told_with_every_copy_its_form_its_place_and_its_readers():
    text = one_line(printed(AUDITS["untied"]))
    assert "layers.0.weight: 2 copies, 1.17 MiB needed, 2.34 MiB stored" in text
    original = "original layers.0.weight, float32 [392, 784] encoder.onnx @ 412 read by node_linear"
    assert original in text
    assert "transposed val_0, float32 [784, 392] decoder.onnx @ 97 read by node_matmul_0" in text
    assert handmade_ties.FOLDER not in text


def test_the_table_has_bytes_needed_and_stored_and_their_ratio():
    rows = [" ".join(line.split()) for line in printed(AUDITS["untied"]).splitlines()]
    assert "encoder.onnx, decoder.onnx 0 of 1 1.18 MiB 2.35 MiB 1.993 copies" in rows


@pytest.mark.parametrize("tty", [False, True])
def test_a_long_subject_goes_on_below_itself(tty):
    long = "onnxruntime fp32, encoder, decoder and autoencoder, memory=packed"
    stage = handmade_ties.stage("process memory", "one copy", subject=long)
    lines = printed(handmade_ties.audit(stage), tty=tty, no_color=True).splitlines()
    first = next(n for n, line in enumerate(lines) if "onnxruntime" in line)
    assert lines[first + 1].lstrip("\x1b[0m ")
    indent = [len(line) - len(line.lstrip()) for line in lines[first : first + 3]]
    assert indent[1] == indent[2] == indent[0] + 2


def test_a_row_for_comparison_says_so_and_is_told_in_one_line():
    text = printed(AUDITS["healthy"])
    assert "fp32, defaults; for comparison" in text
    assert "1 tie stored more than once, 1.17 MiB too much: layers.0.weight" in text
    assert "val_0" not in text


@pytest.mark.parametrize("whole", [False, True])
def test_the_same_bytes_at_two_stages_are_told_once(whole):
    tie = handmade_ties.held() if whole else handmade_ties.broken()
    status = "one copy" if whole else "copies"
    both = ("ONNX files", "ONNX Runtime's optimised graph")
    result = handmade_ties.audit(*(handmade_ties.stage(name, status, tie) for name in both))
    text = printed(result)
    assert text.count("read by ") == len(tie.copies)
    assert (f"\n{both[1]}\n  1 tie stored more than once" in text) is not whole


@pytest.mark.parametrize("name", [name for name in AUDITS if "50" in name])
def test_fifty_layers_do_not_flood_the_screen(name):
    text = printed(AUDITS[name])
    assert len(text.splitlines()) < 80
    assert "layers.49.weight" not in text
    assert "44 more" in one_line(text) or "39 more" in one_line(text)


def test_every_reason_is_told_in_full_and_once():
    text = one_line(printed(AUDITS["untied"]))
    assert text.count(handmade_ties.NO_GPU) == 1
    assert "engine plan, device memory not run" in text


def test_a_mistake_is_told_with_its_consequence_and_a_line_to_copy():
    text = printed(AUDITS["module"], width=40)
    assert CODE in text
    assert "the weight moves twice" in one_line(text)
    assert text.index("broken already") < text.index("at a later call")


def test_names_with_brackets_stay_as_they_are():
    copy = handmade_ties.copy("W[0] [/bold]", uses=("a[0]", "b[1]"), scope="if_[0].then_branch")
    twin = handmade_ties.copy("[red]V", "b.onnx", form="same")
    stage = handmade_ties.stage("ONNX files", "copies", handmade_ties.tie(copy, twin))
    text = one_line(printed(handmade_ties.audit(stage)))
    for name in ("W[0] [/bold] in if_[0].then_branch", "[red]V", "read by a[0], b[1]"):
        assert name in text


def test_files_of_one_name_are_told_apart_by_their_folders():
    copies = (
        handmade_ties.copy("W", "old/model.onnx"),
        handmade_ties.copy("W", "new/model.onnx", form="same"),
    )
    stage = handmade_ties.stage("ONNX files", "copies", handmade_ties.tie(*copies))
    text = printed(handmade_ties.audit(stage))
    assert "old/model.onnx @ 1,088" in text
    assert "new/model.onnx @ 1,088" in text


def test_retie_tells_what_gave_way_the_proof_the_bytes_and_the_files():
    text = one_line(printed(RETIES["mended"]))
    assert "encoder.onnx: layers.0.weight ← decoder.onnx: val_0" in text
    assert "transposed → Gemm transB; saves 1.17 MiB" in text
    assert "bytes 2.35 MiB → 1.17 MiB (0.500 x)" in text
    assert "written out/encoder.onnx out/decoder.onnx out/weights.data" in text
    assert "proof bit for bit: 2 files, 6 random inputs each" in text


def test_fifty_mends_do_not_flood_the_screen():
    text = printed(RETIES["mended, 50 layers"])
    assert len(text.splitlines()) < 50
    assert "and 38 more, 44.5 MiB in all" in text


def test_retie_tells_what_stays_and_why_what_it_proposes_and_that_nothing_is_written():
    text = one_line(printed(RETIES["not proven"]))
    assert "W_1 in function Block, m.onnx: W_2 in function Block left it stands in" in text
    assert "m.onnx: W_in left it is an input that a caller may override" in text
    assert "m.onnx: W ← m.onnx: W [old] transposed, off by at most 0.00013" in text
    assert "only with --accept" in text
    assert "mended nothing" in text
    assert "written nothing written" in text
    assert "not proven: onnxruntime: com.acme:Swish" in text


@pytest.mark.parametrize(
    ("proof", "outputs", "word", "has_next_step"),
    [
        ("bit for bit", ("out/m.onnx",), "mended", False),
        ("not proven", ("out/m.onnx",), "mended", False),
        ("not proven", (), "would mend", True),
        ("failed", (), "would mend", False),
    ],
)
def test_a_mend_that_is_in_no_file_is_only_what_would_be(proof, outputs, word, has_next_step):
    text = one_line(printed(handmade_ties.retied(proof=proof, outputs=outputs)))
    assert f"{word}: kept ← removed" in text
    assert f" {word} 1 copy, 1.17 MiB" in text
    assert ("next --unproven writes" in text) == has_next_step


def test_where_one_file_was_given_names_stand_without_it():
    (mend,) = RETIES["mended"].mends
    mend = msgspec.structs.replace(mend, removed=mend.kept.replace("layers", "copies"))
    alone = RETIES["mended"].inputs[:1]
    text = printed(msgspec.structs.replace(RETIES["mended"], inputs=alone, mends=(mend,)))
    assert "  layers.0.weight ← copies.0.weight" in text


def test_a_retie_of_nothing_has_no_ratio():
    assert " x)" not in printed(msgspec.structs.replace(RETIES["mended"], bytes_before=0))
