"""Every runtime and precision is a candidate once a memory mode, or says why it is not used."""

from __future__ import annotations

from types import SimpleNamespace

import handmade
import pytest

from tiedexport import candidates as module
from tiedexport.candidates import candidates
from tiedexport.errors import UsageError
from tiedexport.results import Availability


@pytest.fixture
def rows(monkeypatch):
    def row(name, **fields):
        found = Availability(name != "absent", "1.0", "no driver", "pip install it")
        return SimpleNamespace(
            name=name, slow=name == "slow", packs=name == "packs", availability=lambda: found
        )

    table = {name: row(name) for name in ("good", "absent", "slow", "packs", "refuses")}
    monkeypatch.setattr(module, "all_runtimes", lambda: table)
    monkeypatch.setattr(module, "runtime_named", table.__getitem__)
    monkeypatch.setattr(
        module,
        "choose_precision",
        lambda row, _, p: (None, "no engine") if row.name == "refuses" else (p, ""),
    )


def test_each_is_there_once_or_says_why_not(rows, tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    found = {(c.runtime.name, c.precision.value, c.memory): c.reason for c in candidates(bundle)}
    assert len(found) == 5 * 2
    reasons = {name: found[name, "fp16", "shared"] for name, *_ in found}
    assert reasons == {
        "good": "",
        "absent": "no driver; pip install it",
        "slow": "slow by design; to measure it: --runtime slow",
        "packs": "",
        "refuses": "no engine",
    }


@pytest.mark.parametrize(
    ("memory", "modes"),
    [
        ("shared", {"good": ["shared"], "packs": ["shared"]}),
        ("packed", {"good": ["packed"], "packs": ["packed"]}),
        ("both", {"good": ["shared"], "packs": ["shared", "packed"]}),
    ],
)
def test_memory_modes_stand_side_by_side_where_a_runtime_has_two(rows, tmp_path, memory, modes):
    bundle = handmade.bundle(tmp_path / "m.tied")
    found = [c for c in candidates(bundle, ("good", "packs"), memory) if c.precision == "fp32"]
    by_name = {name: [c.memory for c in found if c.runtime.name == name] for name in modes}
    assert by_name == modes


def test_what_is_slow_is_used_when_it_is_named(rows, tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    assert {c.reason for c in candidates(bundle, ("slow",))} == {""}


def test_a_mode_that_does_not_exist_is_refused(rows, tmp_path):
    with pytest.raises(UsageError, match="memory mode"):
        list(candidates(handmade.bundle(tmp_path / "m.tied"), memory="half"))
