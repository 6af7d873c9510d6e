"""The registry of runtimes: plug-ins join it, and never in another's name."""

from __future__ import annotations

import sys
import types

import pytest

from tiedexport import runtimes
from tiedexport.errors import UsageError


@pytest.fixture
def plug_in(monkeypatch):
    """Installs a module of rows with these names, and returns the registry with it."""

    def put(*names: str) -> dict[str, object]:
        module = types.ModuleType("fake_plug_in")
        module.RUNTIMES = tuple(types.SimpleNamespace(name=name, rank=1) for name in names)
        monkeypatch.setitem(sys.modules, "fake_plug_in", module)
        entry = types.SimpleNamespace(value="fake_plug_in")
        monkeypatch.setattr(runtimes, "entry_points", lambda group: [entry])
        return runtimes.all_runtimes.__wrapped__()

    return put


def test_a_plug_in_s_rows_stand_among_the_others_by_rank(plug_in):
    assert next(iter(plug_in("abacus"))) == "abacus"
    assert plug_in("abacus").keys() - {"abacus"} == runtimes.all_runtimes().keys()


def test_runtimes_say_whether_they_compute_on_a_gpu():
    on_gpu = {name for name, row in runtimes.all_runtimes().items() if row.on_gpu}
    assert on_gpu == {
        *("tensorrt", "tensorrt_rtx", "torch-cuda"),
        *("onnxruntime-cuda", "onnxruntime-tensorrt"),
    }


@pytest.mark.parametrize("names", [("onnxruntime",), ("abacus", "abacus")], ids=str)
def test_a_name_that_is_taken_is_refused_with_both_homes(plug_in, names):
    with pytest.raises(UsageError, match="two runtimes have one name") as caught:
        plug_in(*names)
    assert caught.value.got == repr(names[0])
    assert "fake_plug_in" in str(caught.value.where)
