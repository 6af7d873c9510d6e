"""`doctor` asks everything that exists, and warns of what cannot live together."""

from __future__ import annotations

import pytest

from tiedexport import doctor, engines, environment
from tiedexport.runtimes import all_runtimes


def test_every_runtime_and_every_default_target_is_a_row() -> None:
    rows = {(row.kind, row.name) for row in doctor.doctor().components}
    assert {("runtime", name) for name in all_runtimes()} <= rows
    assert {("engine builder", target) for target in engines.default_targets()} <= rows


def test_what_is_missing_says_why_and_what_to_do() -> None:
    for row in doctor.doctor().components:
        found = row.availability
        assert found.available or (found.reason and found.remedy), row.name


@pytest.mark.parametrize(
    ("installed", "warned"),
    [({"onnxruntime"}, False), ({"onnxruntime", "onnxruntime-gpu"}, True)],
)
def test_both_onnxruntime_packages_together_are_a_warning(
    installed: set[str], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        environment, "installed_version", lambda package: "1.0" if package in installed else None
    )
    assert bool(doctor.doctor().warnings) == warned
