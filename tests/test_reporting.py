"""A report is made of whatever results are at hand, and refuses those that are none or foreign."""

from __future__ import annotations

import json

import handmade
import handmade_ties
import msgspec
import pytest
from click.testing import CliRunner
from html_outline import Outline

from tiedexport import reporting
from tiedexport.bundle import open_bundle
from tiedexport.cli import cli
from tiedexport.errors import BadInputError, MissingRuntimeError, RuntimeFailedError
from tiedexport.results import BuildResult, TrainResult, to_json
from tiedexport.results.demo import DemoResult
from tiedexport.results.kinds import read_result
from tiedexport.results.suite import SuiteModel, SuiteResult

pytestmark = pytest.mark.usefixtures("quick_charts")


def demo_result() -> DemoResult:
    train = TrainResult("m.pt", handmade.training_record(), (), 1.0)
    build = BuildResult("m.tied", (), 1, 1, 0, (), 1.0)
    verify, bench = handmade.verify_result("m.tied"), handmade.bench_result("m.tied")
    audit = msgspec.structs.replace(handmade_ties.healthy(), things=("out/m.tied",))
    return DemoResult(train, build, audit, verify, bench, "r.html", 1.0)


@pytest.fixture
def files(tmp_path):
    """A bundle and the JSON of every verb."""
    handmade.bundle(tmp_path / "m.tied")
    demo = demo_result()
    for name in ("train", "audit", "verify", "bench"):
        (tmp_path / f"{name}.json").write_bytes(to_json(getattr(demo, name)))
    (tmp_path / "demo.json").write_bytes(to_json(demo))
    return tmp_path


@pytest.fixture(autouse=True)
def no_runtime(monkeypatch):
    """The graphs of the handmade bundle are placeholders: nothing could run them."""

    def refuse(*_):
        raise MissingRuntimeError("no runtime can run this", hint="install one")

    monkeypatch.setattr(reporting, "observe", refuse)


@pytest.mark.parametrize("name", ["train", "audit", "verify", "bench", "demo"])
def test_every_result_is_read_back_as_it_was_written(files, name):
    demo = demo_result()
    assert read_result(files / f"{name}.json") == getattr(demo, name, demo)


def test_a_demo_stands_for_all_its_verbs(files):
    names = ["train.json", "audit.json", "verify.json", "bench.json"]
    one = reporting.write(files / "m.tied", [files / "demo.json"], files / "one.html")
    all_of_them = [files / name for name in names]
    other = reporting.write(files / "m.tied", all_of_them, files / "other.html")
    assert one.read_bytes() == other.read_bytes()
    page = Outline(one.read_text("utf-8"))
    assert "What to deploy: " in page.text
    assert {"The numbers", "The speed", "From stage to stage"} <= set(page.headings)
    assert "Not run: no runtime can run this; install one" in page.text


def test_a_model_that_fails_at_work_is_told_with_as_much_as_is_known(files, monkeypatch):
    def fail(*_):
        raise RuntimeFailedError("not finite", where="native")

    monkeypatch.setattr(reporting, "observe", fail)
    page = Outline(reporting.write(files / "m.tied", [], files / "r.html").read_text("utf-8"))
    assert "Not run: not finite." in page.text


def test_what_is_missing_is_told_with_the_command_that_makes_it(files):
    page = Outline(reporting.write(files / "m.tied", [], files / "r.html").read_text("utf-8"))
    for command in ("tiedexport audit", "tiedexport verify", "tiedexport bench"):
        assert command in page.text
    assert "not known before tiedexport bench has run" in page.text


def test_a_result_of_an_earlier_schema_is_shown_and_what_it_lacks_is_named(files):
    fields = json.loads((files / "bench.json").read_bytes())
    for row in fields["latencies"]:
        for name in ("cv", "rounds_ns", "warm_up", "warnings"):
            row.pop(name, None)
    kept = {
        k: v for k, v in fields.items() if k in ("bundle", "latencies", "environment", "seconds")
    }
    (files / "old.json").write_text(json.dumps({**kept, "schema": 1}))
    path = reporting.write(files / "m.tied", [files / "old.json"], files / "r.html")
    text = Outline(path.read_text("utf-8")).text
    assert "tiedexport bench --roofline measures it" in text


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (None, "No such file"),
        ("{", "no JSON"),
        ("[1]", "JSON of a list"),
        ('{"a": 1}', "fields a"),
        ('{"comparisons": [], "schema": 99}', "schema 99"),
        ('{"comparisons": [], "schema": 1}', "missing required field"),
    ],
)
def test_what_is_no_result_is_refused_by_name(files, content, got):
    path = files / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInputError, match=r"x\.json") as caught:
        reporting.write(files / "m.tied", [path], files / "r.html")
    assert got in str(caught.value)
    assert caught.value.hint


def suite_result() -> SuiteResult:
    bench = msgspec.structs.replace(handmade.bench_result(), bundle="layer-1.tied")
    models = [
        SuiteModel(name, widths, 4 << 20, msgspec.structs.replace(bench, bundle=f"{name}.tied"))
        for name, widths in (("layer-1", (1024, 256)), ("digits", (784, 392)))
    ]
    told = ("untrained", "2026-01-02", "abc123", handmade.ENVIRONMENT, 1.0)
    return SuiteResult(tuple(models), *told)


def test_the_standing_suite_is_shown_as_that_of_its_machine_not_of_the_bundle(files):
    (files / "cpu-1.json").write_bytes(to_json(suite_result()))
    assert read_result(files / "cpu-1.json") == suite_result()
    path = reporting.write(files / "m.tied", [files / "cpu-1.json"], files / "r.html")
    for text in (Outline(path.read_text("utf-8")).text, path.with_suffix(".md").read_text("utf-8")):
        assert "The standing suite" in text
        assert "not of this bundle" in text
        assert "layer-1 (1024 - 256; 4.00 MiB in fp32)" in text
        assert "digits (784 - 392; 4.00 MiB in fp32), autoencoder: latency" in text
        assert "tiedexport bench --suite" in text
    # It is no measurement of this model.
    assert "not known before tiedexport bench has run" in path.read_text("utf-8")


def test_two_results_of_a_verb_are_refused(files):
    twice = [files / "demo.json", files / "verify.json"]
    with pytest.raises(BadInputError, match="second result of verify"):
        reporting.write(files / "m.tied", twice, files / "r.html")


@pytest.mark.parametrize(
    ("verb", "changed"),
    [
        ("verify", {"bundle": "other.tied"}),
        ("bench", {"bundle": "other.tied"}),
        ("audit", {"things": ("other.tied",)}),
        ("train", {"checkpoint": "other.pt", "record": handmade.training_record(epochs=3)}),
    ],
)
def test_a_result_of_another_bundle_is_refused(files, verb, changed):
    other = msgspec.structs.replace(getattr(demo_result(), verb), **changed)
    (files / "other.json").write_bytes(to_json(other))
    with pytest.raises(BadInputError, match="of another bundle") as caught:
        reporting.write(files / "m.tied", [files / "other.json"], files / "r.html")
    assert "got:      other." in str(caught.value)


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_a_result_of_other_weights_is_refused(files, verb):
    held = open_bundle(files / "m.tied").manifest.weights_sha256
    kind, digest = next(iter(held.items()))
    result = getattr(demo_result(), verb)
    for told, refused in (({kind: digest}, False), ({kind: "0" * 64}, True)):
        of_weights = msgspec.structs.replace(result, weights_sha256=told)
        (files / "told.json").write_bytes(to_json(of_weights))
        arguments = files / "m.tied", [files / "told.json"], files / "r.html"
        if refused:
            with pytest.raises(BadInputError, match=f"with other weights in {kind}"):
                reporting.write(*arguments)
        else:
            reporting.write(*arguments)


def test_the_command_line_writes_both_twins_and_tells_their_size(files):
    page = files / "page.html"
    arguments = ["report", str(files / "m.tied"), str(files / "verify.json"), "-o", str(page)]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "KiB" in done.output or "MiB" in done.output
    assert page.with_suffix(".md").is_file()
    assert page.stat().st_size < 6 << 20


@pytest.mark.parametrize(("output", "words"), [("no/r.html", "no folder"), ("r.txt", ".html")])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(files, output, words):
    done = CliRunner().invoke(cli, ["report", str(files / "m.tied"), "-o", str(files / output)])
    assert done.exit_code == 2
    assert words in done.output
