"""A report is one safe, self-contained page with a Markdown twin that says the same."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys

import handmade
import msgspec
import pytest
from html_outline import Outline

from tiedexport.report import html, markdown, report
from tiedexport.report.page import Commands
from tiedexport.results import TrainResult

pytestmark = pytest.mark.usefixtures("quick_charts")

JSON = {"type": "application/json"}
EVIL = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    bundle = handmade.bundle(folder / "m.tied")
    path = report(
        bundle,
        verify=handmade.verify_result(),
        bench=handmade.bench_result(),
        output=folder / "out" / "report.html",
    )
    return path, Outline(path.read_text("utf-8")), path.with_suffix(".md").read_text("utf-8")


def test_the_first_screen_answers_four_questions_before_any_section(written):
    _, page, _ = written
    assert page.headings[:5] == [
        "handmade",
        "What is it?",
        "Does the tie hold?",
        "Do the numbers match?",
        "How fast is it?",
    ]
    for answer in ("yes", "6 of 6", "40.0 µs", "0.0625"):
        assert answer in page.text


def test_questions_without_a_result_are_asked_and_say_what_answers_them(tmp_path):
    path = report(handmade.bundle(tmp_path / "m.tied"), output=tmp_path / "report.html")
    page = Outline(path.read_text("utf-8"))
    assert page.headings[3:5] == ["Do the numbers match?", "How fast is it?"]
    assert "tiedexport verify tells" in page.text
    assert "tiedexport bench tells" in page.text


def test_a_model_without_ties_is_not_said_to_hold_one(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    bundle.manifest = msgspec.structs.replace(bundle.manifest, ties=())
    path = report(bundle, output=tmp_path / "report.html")
    text = Outline(path.read_text("utf-8")).text
    assert "no tie" in text
    assert "✓" not in text


def test_the_page_asks_the_network_for_nothing_and_runs_only_scripts_that_its_policy_names(written):
    path, page, _ = written
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/png;base64,", "#"))
    (policy,) = [a for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", path.read_text("utf-8"), flags=re.DOTALL)
    named = re.findall(r"'sha256-([^']+)'", policy["content"])
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    assert named == [base64.b64encode(digest).decode() for digest in digests]
    assert len(named) == 2
    assert "unsafe-eval" not in policy["content"]
    assert "University of Washington Interactive Data Lab" in scripts[0][:400]


def test_every_picture_has_a_text_in_its_place(written):
    _, page, _ = written
    images = [a["alt"] for t, a in page.tags if t == "img"]
    drawings = [a["aria-label"] for t, a in page.tags if t == "svg" and a.get("role") == "img"]
    assert len(images) == 2 + 5
    assert len(drawings) == 2 + 2 + 1 + 2 + 1
    assert all(images + drawings)


def test_every_chart_is_there_still_and_live(written):
    path, page, _ = written
    live = re.findall(
        r'<div class="live"><svg.*?</svg></div><script type="application/json">(.*?)</script>',
        path.read_text("utf-8"),
        flags=re.DOTALL,
    )
    drawings = [a["aria-label"] for t, a in page.tags if t == "svg" and a.get("role") == "img"]
    assert [json.loads(spec)["description"] for spec in live] == drawings


def test_headings_descend_by_one_and_landmarks_are_there(written):
    _, page, _ = written
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {"main", "header"} <= {tag for tag, _ in page.tags}


def test_ids_are_unique(written):
    _, page, _ = written
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_light_dark_and_phone_are_provided_for(written):
    path, page, _ = written
    style = path.read_text("utf-8")
    assert "prefers-color-scheme: dark" in style
    assert any(a.get("name") == "viewport" for _, a in page.tags)
    used = set(re.findall(r"var\((--[\w-]+)\)", style))
    defined = set(re.findall(r"(--[\w-]+):", style))
    assert used <= defined


def test_reasons_of_rows_that_did_not_run_are_told_in_full_in_both_twins(written):
    _, page, twin = written
    assert "no <driver> & no GPU" in page.text
    assert "no &lt;driver&gt; &amp; no GPU" in twin


def test_the_commands_that_repeat_the_report_are_told(written):
    _, page, twin = written
    command = (
        "tiedexport bench m.tied --batch 1,8,64 --stage autoencoder --warmUp 200 --duration 1 "
        "--iterations 10 --threads 1"
    )
    assert command in page.text
    assert command in twin


def test_the_twin_has_the_same_sections_and_its_pictures_exist(written):
    path, page, twin = written
    sections = re.findall(r"^## (.*)$", twin, flags=re.MULTILINE)
    assert sections == page.headings[5:]
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", twin)
    assert len(linked) == 15
    for name in linked:
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")


def test_hostile_names_and_reasons_stay_text(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied", name=EVIL)
    verify = handmade.verify_result(reason=EVIL)
    rows = [msgspec.structs.replace(r, runtime=EVIL) for r in verify.comparisons]
    verify = msgspec.structs.replace(verify, comparisons=tuple(rows))
    bench = handmade.bench_result(reason=EVIL)
    runs = [msgspec.structs.replace(r, runtime=EVIL) for r in bench.latencies]
    bench = msgspec.structs.replace(bench, latencies=tuple(runs))
    path = report(bundle, verify=verify, bench=bench, output=tmp_path / "r.html")
    page = Outline(path.read_text("utf-8"))
    assert [a for tag, a in page.tags if tag == "script" and a != JSON] == [{}, {}]
    assert "<script>alert" not in path.read_text("utf-8")
    assert page.headings[0] == EVIL
    assert "<script" not in path.with_suffix(".md").read_text("utf-8")


@pytest.mark.parametrize("training", [True, False])
def test_a_bundle_alone_makes_a_report_of_what_is_known(tmp_path, training):
    handmade.bundle(tmp_path / "m.tied", training=training)
    path = report(str(tmp_path / "m.tied"), output=tmp_path / "r.html")
    headings = Outline(path.read_text("utf-8")).headings
    assert ("Training" in headings) is training
    assert "The numbers" not in headings
    assert "The speed" not in headings


def test_a_training_result_takes_the_place_of_the_bundles_own_record(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied", training=False)
    train = TrainResult("m.pt", handmade.training_record(), (), 1.0)
    path = report(bundle, train=train, output=tmp_path / "r.html")
    assert "Training" in Outline(path.read_text("utf-8")).headings


def test_when_nothing_ran_the_report_says_so_instead_of_passing(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    verify, bench = handmade.verify_result(), handmade.bench_result()
    idle = tuple(row for row in verify.comparisons if row.status == "not run")
    verify = msgspec.structs.replace(verify, comparisons=idle, quality=(), reconstructions=())
    absent = tuple(row for row in bench.latencies if row.status == "not run")
    bench = msgspec.structs.replace(bench, latencies=absent)
    text = report(bundle, verify=verify, bench=bench, output=tmp_path / "r.html").read_text("utf-8")
    page = Outline(text)
    assert "nothing ran" in page.text
    assert "nothing could be measured here" in page.text
    assert text.count('<li class="failed">') == 2


def test_tag_escapes_children_and_attributes_unless_they_are_html():
    inner = html.tag("b", "<&>")
    assert html.tag("p", inner, '"', class_='a"b', empty="") == (
        '<p class="a&quot;b"><b>&lt;&amp;&gt;</b>&quot;</p>'
    )


@pytest.mark.parametrize("render", [html._block, lambda b: markdown._block(b, None)])
def test_an_unknown_block_is_an_error_of_ours(render):
    with pytest.raises(TypeError, match="object"):
        render(object())


def test_the_same_results_make_the_same_page(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    pages = [
        report(bundle, bench=handmade.bench_result(), output=tmp_path / f"{n}.html").read_bytes()
        for n in range(2)
    ]
    assert pages[0] == pages[1]


def test_the_markdown_of_plain_text_means_that_text():
    assert markdown.text("a|b *c* `d`\n_e_ <f> #g") == (r"a\|b \*c\* \`d\` \_e\_ &lt;f&gt; \#g")


@pytest.mark.parametrize("line", ["plain", "a ``` b ```` c", "<b>"])
def test_code_in_markdown_is_fenced_by_more_backticks_than_it_holds(line):
    fence, *code, end = markdown._block(Commands(("first", line)), None).splitlines()
    assert code == ["first", line]
    assert fence == end
    assert fence not in line


def test_importing_the_report_loads_neither_altair_nor_torch_nor_onnx():
    code = (
        "import sys, tiedexport.report, tiedexport.report.html, tiedexport.report.content;"
        "print([m for m in ('altair', 'PIL', 'torch', 'onnx', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
