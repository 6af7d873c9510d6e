"""Opening a session: what is asked for reaches the runtime, and no other takes its place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from recording_runtime import Recording, recording_runtimes

from tiedexport import trt
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import BundleError, MissingRuntimeError, RuntimeFailedError
from tiedexport.runtimes import Options, runtime_named
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    return recording_runtimes(monkeypatch)


def test_options_reach_the_runtime_as_they_were_asked(dense_bundle: Bundle, install):
    row = Recording()
    install(row)
    open_session(dense_bundle)
    open_session(dense_bundle, runtime="recording", precision="fp32", memory="packed", threads=3)
    assert row.opened == [
        (dense_bundle, FP16, Options("shared", None)),
        (dense_bundle, FP32, Options("packed", 3)),
    ]


def test_the_default_precision_is_the_runtimes_best_that_it_does_not_refuse(dense_bundle, install):
    for refused, chosen in (((), BF16), ((BF16,), FP16), ((BF16, FP16), FP32)):
        install(Recording(precisions=(BF16, FP16, FP32), refused=refused))
        assert open_session(dense_bundle).precision is chosen


def test_auto_passes_over_what_cannot_run_and_says_which_it_took(dense_bundle: Bundle, install):
    rows = Recording("absent", reason="no driver"), Recording("picky", refused=(FP16, FP32))
    install(*rows, Recording("able"), Recording("later"))
    session = open_session(dense_bundle)
    assert session.runtime == "able"
    assert not rows[0].opened
    assert not rows[1].opened


def test_when_nothing_can_run_every_runtime_gives_its_reason(dense_bundle: Bundle, install):
    install(Recording("absent", reason="no driver"), Recording("picky", refused=(FP32,)))
    with pytest.raises(MissingRuntimeError, match="no runtime can run this bundle") as caught:
        open_session(dense_bundle, precision="fp32")
    assert caught.value.got == "absent: no driver; picky: picky refuses fp32"
    assert "tiedexport doctor" in str(caught.value.hint)


def test_a_runtime_asked_for_by_name_is_never_replaced(dense_bundle: Bundle, install):
    able = Recording("able")
    install(able, Recording("absent", reason="no driver"))
    with pytest.raises(MissingRuntimeError, match="absent cannot run"):
        open_session(dense_bundle, runtime="absent")
    assert not able.opened


def test_auto_goes_on_where_a_runtime_fails_to_start_and_says_so(dense_bundle, install, caplog):
    broken = Recording("broken", failure=RuntimeFailedError("it failed", got="no kernel"))
    install(broken, Recording("able"))
    assert open_session(dense_bundle).runtime == "able"
    assert "broken is passed over: it failed: no kernel" in caplog.text
    with pytest.raises(RuntimeFailedError, match="no kernel"):
        open_session(dense_bundle, runtime="broken")


# One copy of each weight.


def test_auto_prefers_a_precision_and_a_runtime_that_store_no_weight_again(dense_bundle, install):
    copying = Recording("copying", precisions=(BF16, FP16), copying=(BF16, FP16))
    mixed = Recording("mixed", precisions=(BF16, FP32), copying=(BF16,), refused=(FP16,))
    install(copying, mixed, Recording("later"))
    session = open_session(dense_bundle)
    assert (session.runtime, session.precision) == ("mixed", FP32)
    assert session.hidden_copies is None
    assert not copying.opened
    assert open_session(dense_bundle, precision="fp16").runtime == "later"


def test_what_stores_weights_again_is_opened_where_nothing_else_is_and_says_so(
    dense_bundle: Bundle, install, caplog
):
    slow = Recording("judge", slow=True)
    install(Recording("absent", reason="no driver"), Recording("copying", copying=(FP16,)), slow)
    session = open_session(dense_bundle, precision="fp16")
    assert (session.runtime, session.hidden_copies) == ("copying", "copying copies fp16")
    assert "copying in fp16 stores weights again: copying copies fp16" in caplog.text
    assert open_session(dense_bundle).hidden_copies is None  # its fp32


def test_what_stores_weights_again_is_opened_by_name_and_says_so(dense_bundle, install, caplog):
    install(Recording("able"), Recording("copying", copying=(FP16, FP32)))
    session = open_session(dense_bundle, runtime="copying")
    assert (session.runtime, session.precision) == ("copying", FP16)
    assert session.hidden_copies == "copying copies fp16"
    assert "stores weights again" in caplog.text


def test_packed_memory_asks_for_copies_and_so_hides_none(dense_bundle, install, caplog):
    install(Recording("copying", copying=(FP16, FP32)), Recording("able"))
    session = open_session(dense_bundle, memory="packed")
    assert (session.runtime, session.memory, session.hidden_copies) == ("copying", "packed", None)
    assert not caplog.text


def test_a_slow_evaluator_waits_its_turn(dense_bundle: Bundle, install):
    install(Recording("judge", slow=True), Recording("able"))
    assert open_session(dense_bundle).runtime == "able"
    install(Recording("judge", slow=True), Recording("absent", reason="no driver"))
    assert open_session(dense_bundle).runtime == "judge"


def test_auto_prefers_what_is_faster_but_not_at_the_price_of_a_copy(dense_bundle, install):
    slower, copying = Recording("slower", slower=(FP16,)), Recording("copying", copying=(FP16,))
    judge = Recording("judge", slow=True)
    install(slower, copying, judge, Recording("faster"))
    assert open_session(dense_bundle, precision="fp16").runtime == "faster"
    assert open_session(dense_bundle, precision="fp32").runtime == "slower"
    assert open_session(dense_bundle, runtime="slower", precision="fp16").runtime == "slower"
    install(slower, copying, judge)
    assert open_session(dense_bundle, precision="fp16").runtime == "slower"
    assert open_session(dense_bundle, precision="fp16", memory="packed").runtime == "copying"


def test_stages_that_no_session_could_serve_open_no_runtime(dense_bundle: Bundle, install):
    row = Recording()
    install(row)
    manifest = SimpleNamespace(
        precisions=dense_bundle.manifest.precisions,
        stages=[SimpleNamespace(name="encoder", inputs=(), outputs=())],
        kept={},
    )
    with pytest.raises(IndexError):
        open_session(Bundle(dense_bundle.path, manifest))
    assert not row.opened


def test_a_precision_that_the_bundle_lacks_is_named(dense_bundle: Bundle, install, tmp_path: Path):
    install(Recording())
    with pytest.raises(MissingRuntimeError, match="the bundle holds fp32 only"):
        open_session(_fp32_only(dense_bundle), precision="fp16")


def _fp32_only(bundle: Bundle) -> Bundle:
    import msgspec

    weights = {FP32: bundle.manifest.weights[FP32]}
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, weights=weights))


def test_a_path_is_checked_in_full_and_an_open_bundle_is_taken_as_it_is(
    dense_bundle: Bundle, install, tmp_path: Path
):
    row = Recording()
    install(row)
    copied = shutil.copytree(dense_bundle.path, tmp_path / "b.tied")
    opened = open_bundle(copied)
    graph = copied / "encoder.fp32.onnx"
    graph.write_bytes(bytes(len(graph.read_bytes())))
    with pytest.raises(BundleError, match="altered"):
        open_session(str(copied))
    assert open_session(opened).bundle is opened


def test_stages_answer_to_their_names_and_their_verbs(dense_bundle: Bundle):
    x = dense_bundle.golden["input"]
    with open_session(dense_bundle, precision="fp32") as session:
        for stage, verb in (("encoder", "encode"), ("autoencoder", "reconstruct")):
            by_name, by_verb = session.run(stage, x), session.run(verb, x)
            np.testing.assert_array_equal(by_name, by_verb)
            np.testing.assert_array_equal(by_name, getattr(session, verb)(x))


def test_auto_on_a_cpu_loads_no_library_but_the_one_that_it_takes(dense_bundle: Bundle):
    if trt.driver().available:
        pytest.skip("there is a GPU, of which auto asks every library")
    code = (
        "import sys, tiedexport\n"
        f"session = tiedexport.open_session({str(dense_bundle.path)!r})\n"
        "loaded = {'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx'} & sys.modules.keys()\n"
        "print(session.runtime, *loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    native = runtime_named("native").availability().available
    assert done.stdout.split() == (["native"] if native else ["onnxruntime", "onnxruntime"])
