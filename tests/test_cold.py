"""Cold starts: processes take turns, the first is not counted, and parts are medians."""

from __future__ import annotations

import handmade
import pytest

from tiedexport import cold as module
from tiedexport.candidates import candidates
from tiedexport.cold import LEAST_PROCESSES, PARTS, cold
from tiedexport.errors import RuntimeFailedError, UsageError

RUNTIMES = ("reference", "onnxruntime")


@pytest.fixture
def bundle(tmp_path):
    return handmade.bundle(tmp_path / "m.tied")


def test_each_part_is_the_median_of_all_processes_but_the_first(bundle):
    asked = []

    def started(question):
        path, check, options = question
        assert (path, check) == (str(bundle.path), "size")
        asked.append((options["runtime"], options["precision"].value))
        number = asked.count(asked[-1])
        # Of the first process of each, a day; then 1, 2, … in each part, times its place.
        step = 86_400 * 10**9 if number == 1 else (number - 1) * 10**6
        return [7, *(7 + step * total for total in (1, 3, 6, 10, 15))]

    rows = cold(bundle, runtime=RUNTIMES, check="size", processes=5, started=started)
    ran = [row for row in rows if row.status == "passed"]
    assert {row.runtime for row in ran} == set(RUNTIMES)
    for row in ran:
        assert [getattr(row, part) for part in PARTS] == pytest.approx(
            [3e-3 * place for place in (1, 2, 3, 4, 5)]
        )
        assert row.total_s == pytest.approx(45e-3)
        assert (row.least_s, row.most_s) == pytest.approx((15e-3, 75e-3))
        assert (row.processes, row.check) == (5, "size")
    # Turn by turn, forwards and backwards.
    n = len(ran)
    assert asked[:n] == asked[n : 2 * n][::-1] == asked[2 * n : 3 * n]
    assert len(asked) == 6 * n


def test_one_that_cannot_start_fails_and_is_not_started_again(bundle):
    asked = []

    def started(question):
        asked.append(question[2]["runtime"])
        if asked[-1] == "reference":
            raise RuntimeFailedError("its process died, exit code 1")
        return [0, 1, 2, 3, 4, 5]

    rows = cold(bundle, runtime=RUNTIMES, started=started)
    able = [c for c in candidates(bundle, ("reference",)) if not c.reason]
    assert asked.count("reference") == len(able)
    failed = [row for row in rows if row.status == "failed"]
    assert {row.reason for row in failed} == {"its process died, exit code 1"}
    assert {row.runtime for row in failed} == {"reference"}


def test_what_cannot_run_here_says_why_and_no_process_is_started(bundle):
    (row, *_) = cold(bundle, runtime=("tensorrt",), started=lambda _: pytest.fail("started"))
    assert row.status == "not run"
    assert row.reason


def test_too_few_processes_are_refused(bundle):
    with pytest.raises(UsageError, match="too few"):
        cold(bundle, processes=LEAST_PROCESSES - 1)


def test_a_real_process_reads_its_clock_at_every_point(dense_bundle):
    started: dict[str, list[int]] = {}

    def once(question):
        precision = question[2]["precision"]
        if precision not in started:
            started[precision] = module._started(question)
        return started[precision]

    rows = cold(dense_bundle, runtime=("onnxruntime",), processes=LEAST_PROCESSES, started=once)
    ran = [row for row in rows if row.status != "not run"]
    assert {row.status for row in ran} == {"passed"}, ran
    for row in ran:
        parts = [getattr(row, part) for part in PARTS]
        assert all(part > 0 for part in parts)
        assert sum(parts) == pytest.approx(row.total_s)
