"""A server under load as a report and a terminal show it, beside this process."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import handmade
import pytest
from browser import SIZES, assert_accessible, assert_fits, assert_quiet, visit
from msgspec.structs import replace
from rich.console import Console

from tiedexport.report import report, server_charts, server_tables
from tiedexport.report.server_terminal import print_server
from tiedexport.results.load import Load
from tiedexport.results.server import ServerLoad, ServerResult

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

FP32 = handmade.FP32


def figures(p50_s: float) -> dict[str, float]:
    shares = {"min": 0.5, "mean": 1.1, "p50": 1.0, "p90": 1.5, "p99": 3.0, "max": 9.0}
    return {name: p50_s * share for name, share in shares.items()}


def closed(callers: int, p50_s: float) -> ServerLoad:
    row = ServerLoad("triton over http", "autoencoder", FP32, 2, "closed", "passed")
    return replace(
        row,
        callers=callers,
        requests=100,
        achieved_per_s=callers / p50_s,
        throughput_per_s=2 * callers / p50_s,
        latencies_s=figures(p50_s),
    )


def offered(rate: float, p50_s: float, *warnings: str) -> ServerLoad:
    row = replace(closed(0, p50_s), loop="open", achieved_per_s=rate, throughput_per_s=2 * rate)
    return replace(row, offered_per_s=rate, late_p99_s=1e-4, warnings=warnings)


def own(runtime: str, callers: int, p50_s: float) -> Load:
    row = Load(runtime, "autoencoder", FP32, "shared", 1, 2, callers, "passed")
    return replace(row, calls=100, latencies_s=figures(p50_s), throughput_per_s=2 * callers / p50_s)


def result() -> ServerResult:
    rows = (
        closed(1, 2e-3),
        closed(2, 3e-3),
        offered(100.0, 2e-3),
        offered(200.0, 4e-3, "client-bound: late"),
        offered(400.0, 40e-3, "client-bound: late", "saturated: a queue grew"),
    )
    loads = (
        own("slow", 1, 1e-3),
        own("slow", 2, 2e-3),
        own("quick", 1, 5e-4),
        own("quick", 2, 4e-3),
    )
    return ServerResult(
        bundle="handmade.tied",
        url="http://127.0.0.1:8000",
        server="triton 2.51.0",
        models={"autoencoder": "handmade_autoencoder"},
        rows=rows,
        loads=loads,
        environment=handmade.ENVIRONMENT,
        seconds=3.0,
        options={"duration": 1.0, "arrivals": "poisson", "threads": 1},
    )


def test_the_quickest_runtime_stands_beside_the_server_and_what_it_adds() -> None:
    by_callers, by_rate = server_tables.tables(result())
    assert by_callers.title == (
        "autoencoder, batch 2: triton over http fp32; here: quick fp32, without a server"
    )
    assert by_callers.rows == (
        ("1", "2.00 ms", "6.00 ms", "500", "500 µs", "1.50 ms", "2,000", "1.50 ms"),
        ("2", "3.00 ms", "9.00 ms", "667", "4.00 ms", "12.0 ms", "500", "–"),
    )
    assert by_callers.marks == ("", "")
    assert [row[:3] for row in by_rate.rows] == [
        ("100", "100", "0"),
        ("200", "200", "0"),
        ("400", "400", "0"),
    ]
    assert by_rate.rows[0][3:] == ("2.00 ms", "3.00 ms", "6.00 ms", "18.0 ms", "100 µs")


def test_warnings_name_the_rates_and_failures_the_reason() -> None:
    wrong = replace(closed(4, 2e-3), status="failed", reason="of 9 requests 1 failed", failed=1)
    found = replace(result(), rows=(*result().rows, wrong))
    assert server_tables.reasons(found) == [
        ("failed", "triton over http fp32", "of 9 requests 1 failed"),
        ("unsteady", "autoencoder, batch 2 at 200, 400/s", "client-bound: late"),
        ("unsteady", "autoencoder, batch 2 at 400/s", "saturated: a queue grew"),
    ]
    assert (found.failed, found.passed) == (True, False)
    by_callers, _ = server_tables.tables(found)
    assert by_callers.marks == ("", "", "failed")


def test_a_load_without_an_answer_and_a_process_without_a_runtime_have_dashes() -> None:
    lost = replace(closed(1, 2e-3), status="failed", latencies_s={}, achieved_per_s=0.0)
    by_callers, _ = server_tables.tables(replace(result(), rows=(lost,), loads=()))
    assert by_callers.rows == (("1", "–", "–", "0", "–", "–", "–", "–"),)
    assert "here: not run" in by_callers.title


def test_charts_say_every_figure_in_words() -> None:
    (_, _, rows, loads), *_ = server_tables.groups(result())
    latency = server_charts.closed_latency(rows[:2], loads)["description"]
    assert "triton over http fp32 p99, 2 callers: 9.00 ms" in latency
    assert "quick fp32 p50, 1 callers: 500 µs" in latency
    throughput = server_charts.closed_throughput(rows[:2], loads)["description"]
    assert "triton over http fp32, 2 callers: 1,333" in throughput
    assert "p99, 400 requests/s: 120 ms" in server_charts.open_latency(rows[2:])["description"]


def test_a_terminal_has_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    print_server(result(), console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (header,) = (line.split() for line in lines if line.startswith("callers"))
    assert header[-1] == "adds"  # on one line
    assert lines[-1] == "server: triton 2.51.0 at http://127.0.0.1:8000: handmade_autoencoder"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    bundle = handmade.bundle(folder / "handmade.tied")
    other = replace(result(), url="grpc://127.0.0.1:8001", options={"rate": "100,200"})
    return report(bundle, servers=[result(), other], output=folder / "report.html")


@SIZES
def test_the_page_is_quiet_fits_and_can_be_read_by_everyone(
    chromium: Browser, page: Path, size: tuple[int, int]
) -> None:
    with visit(chromium, page.as_uri(), size, "light") as seen:
        seen.page.wait_for_selector("svg.marks")
        assert_fits(seen.page)
        assert_accessible(seen.page)
        assert_quiet(seen)


def test_the_markdown_twin_has_each_server_and_says_how_to_repeat_it(page: Path) -> None:
    told = page.with_suffix(".md").read_text("utf-8")
    assert "## The server at http://127.0.0.1:8000" in told
    assert "## The server at grpc://127.0.0.1:8001" in told
    for picture in ("server-autoencoder-2-latency", "server-2-autoencoder-2-latency"):
        assert told.count(f"/{picture}.png") == 1
    assert (
        "tiedexport bench handmade.tied --server http://127.0.0.1:8000 --concurrency 2 --batch 2 "
        "--stage autoencoder --duration 1.0 --arrivals poisson --threads 1 --json server.json"
    ) in told
    assert "--stage autoencoder --rate 100,200 --json server-2.json" in told
    assert "tiedexport report handmade.tied server.json server-2.json -o" in told
