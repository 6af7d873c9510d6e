"""What must be said beside a row stands beside it wherever the row is shown."""

from __future__ import annotations

import io
import re

import handmade
import pytest
from html_outline import Outline
from msgspec import structs
from rich.console import Console

from tiedexport.report import bench_terminal, layers, report, terminal
from tiedexport.results import BenchResult, Comparison, VerifyResult, to_json

pytestmark = pytest.mark.usefixtures("quick_charts")

REMARK = "network, simulated"
STAGES = ("encoder", "decoder", "autoencoder")
LAYERS = ("gemm_0_output", "code")


def simulated(row):
    """The same row of torch, as a simulation of another runtime."""
    return row if row.runtime != "torch" else structs.replace(row, runtime="abacus", remark=REMARK)


def verified(*, fault: bool = False) -> VerifyResult:
    result = handmade.verify_result()
    layers = tuple(
        structs.replace(handmade.comparison(runtime, "encoder", handmade.FP16, ratio), layer=layer)
        for runtime in ("onnxruntime", "torch")
        for layer, ratio in zip(LAYERS, (0.25, 7.5 if fault else 0.5), strict=True)
    )
    unseen = Comparison("torch-cuda", "encoder", handmade.FP16, "not run", "it shows nothing")
    layers = tuple(map(simulated, layers))
    quality = (*result.quality, structs.replace(result.quality[0], runtime="torch"))
    return structs.replace(
        result,
        comparisons=tuple(map(simulated, result.comparisons)),
        quality=tuple(map(simulated, quality)),
        reconstructions=tuple(map(simulated, result.reconstructions)),
        layers=(*layers, unseen),
        strays=tuple(row for row in layers if row.status == "failed"),
    )


def measured() -> BenchResult:
    result = handmade.bench_result()
    return structs.replace(result, latencies=tuple(map(simulated, result.latencies)))


def printed(result: VerifyResult | BenchResult, width: int) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    if isinstance(result, VerifyResult):
        terminal.print_verify(result, console)
    else:
        bench_terminal.print_bench(result, console)
    return stream.getvalue()


@pytest.mark.parametrize("fault", [False, True])
def test_no_row_of_a_simulation_is_told_without_saying_so(fault: bool, tmp_path) -> None:
    result, bench = verified(fault=fault), measured()
    path = report(
        handmade.bundle(tmp_path / "m.tied"), verify=result, bench=bench, output=tmp_path / "r.html"
    )
    page = Outline(path.read_text("utf-8")).text
    twin = path.with_suffix(".md").read_text("utf-8")
    for text in (printed(result, 200), printed(bench, 200), page, twin):
        mentions = re.findall(r"abacus[^|]{0,40}", " ".join(text.split()))
        assert mentions
        for mention in mentions:
            assert re.match(rf"abacus( fp\d+)?( \\?\({REMARK}\\?\))", mention), mention


def test_the_json_has_the_remark_in_every_row() -> None:
    for rows in (verified().comparisons, verified().layers, verified().quality):
        for row in rows:
            assert (b'"remark": "' + REMARK.encode() in to_json(row)) == (row.runtime == "abacus")


def test_a_layer_that_nobody_showed_has_not_passed() -> None:
    row = Comparison("torch", "encoder", handmade.FP16, "not run", "not there", layer="code")
    for rows, mark in (((row,), "not run"), ((row, *verified().layers), "passed")):
        result = structs.replace(verified(), layers=rows)
        (table,) = layers.layer_tables(result)
        assert dict(zip((line[0] for line in table.rows), table.marks, strict=True))["code"] == mark


@pytest.mark.parametrize("fault", [False, True])
def test_layers_are_shown_by_stage_and_what_strays_is_named(fault: bool, tmp_path) -> None:
    result = verified(fault=fault)
    text = " ".join(printed(result, 80).split())
    assert "encoder fp16: error of each layer in units of its bound" in text
    assert "it shows nothing" in text
    assert max(map(len, printed(result, 80).splitlines())) <= 80
    for runner in (f"abacus fp16 ({REMARK}) encoder", "onnxruntime fp16 encoder"):
        named = f"{runner} failed strays at code: error above its bound, by up to 7.5 x"
        assert (named in text) == fault
    assert result.failed == fault
    path = report(handmade.bundle(tmp_path / "m.tied"), verify=result, output=tmp_path / "r.html")
    page = " ".join(Outline(path.read_text("utf-8")).text.split())
    for layer in LAYERS:
        assert layer in page
    assert ("strays at code" in page) == fault
