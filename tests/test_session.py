"""Opening a session: what is asked for reaches the runtime, and leaving it frees the runtime."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tiedexport import session as module
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import BundleError, MissingRuntimeError
from tiedexport.results import Availability
from tiedexport.runtimes import Options
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision


class Recording:
    """A runtime that writes down what it is asked, and answers with zeros."""

    rank, slow = 0, False
    accumulation = dict.fromkeys(Precision, FP32)

    def __init__(
        self,
        name: str = "recording",
        *,
        reason: str = "",
        precisions: tuple[Precision, ...] = (FP16, FP32),
        refused: tuple[Precision, ...] = (),
    ) -> None:
        self.name, self._reason, self.precisions = name, reason, precisions
        self._refused = refused
        self.opened: list[tuple[Bundle, Precision, Options]] = []
        self.closed = 0

    def availability(self) -> Availability:
        return Availability(not self._reason, "1.0", self._reason)

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        return f"{self.name} refuses {precision}" if precision in self._refused else None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> SimpleNamespace:
        self.opened.append((bundle, precision, options))

        def run(stage, x, out):
            return np.zeros((len(x), *stage.outputs[0].element_shape), np.float32)

        return SimpleNamespace(run=run, close=self._close)

    def _close(self) -> None:
        self.closed += 1


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Makes the given runtimes the only ones, in the order of their rank."""

    def put(*rows: Recording) -> None:
        table = {row.name: row for row in rows}
        monkeypatch.setattr(module, "all_runtimes", lambda: table)
        monkeypatch.setattr(module, "runtime_named", table.__getitem__)

    return put


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


def test_leaving_the_with_statement_closes_whatever_happened(dense_bundle: Bundle, install):
    row = Recording()
    install(row)

    def fail_inside() -> None:
        with open_session(dense_bundle) as session:
            assert session.encode(np.zeros((2, 20), np.float32)).shape == (2, 7)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail_inside()
    assert row.closed == 1


def test_stages_answer_to_their_names_and_their_verbs(dense_bundle: Bundle):
    x = dense_bundle.golden["input"]
    with open_session(dense_bundle, precision="fp32") as session:
        for stage, verb in (("encoder", "encode"), ("autoencoder", "reconstruct")):
            by_name, by_verb = session.run(stage, x), session.run(verb, x)
            np.testing.assert_array_equal(by_name, by_verb)
            np.testing.assert_array_equal(by_name, getattr(session, verb)(x))
