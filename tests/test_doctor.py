"""`doctor` asks everything that exists, says what each lack is about, and warns of rivals."""

from __future__ import annotations

import pytest

from tiedexport import doctor, engines, environment, trt
from tiedexport.results import Availability, Component
from tiedexport.runtimes import all_runtimes

NONE = Availability(False, reason="no CUDA driver (nowhere)", remedy="install the driver")


def rows_of(kind: str) -> dict[str, Component]:
    return {row.name: row for row in doctor.doctor().components if row.kind == kind}


def with_packages(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    monkeypatch.setattr(
        environment, "installed_version", lambda package: "1.0" if package in installed else None
    )


def with_driver(monkeypatch: pytest.MonkeyPatch, found: Availability, device=None) -> None:
    monkeypatch.setattr(trt, "driver", lambda: found)
    monkeypatch.setattr(trt, "driver_for", lambda package: found)
    monkeypatch.setattr(trt, "device", lambda: device)


def test_every_runtime_and_every_default_target_is_a_row() -> None:
    rows = {(row.kind, row.name) for row in doctor.doctor().components}
    assert {("runtime", name) for name in all_runtimes()} <= rows
    assert {("engine builder", target) for target in engines.default_targets()} <= rows


def test_what_is_missing_says_why_and_what_to_do() -> None:
    for row in doctor.doctor().components:
        found = row.availability
        assert found.available or (found.reason and found.remedy), row.name


def test_packages_that_are_missing_say_what_they_are_for_and_how_they_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_packages(monkeypatch)
    rows = rows_of("package")
    assert rows.keys() == doctor._PACKAGES.keys()
    for name, row in rows.items():
        purpose, remedy = doctor._PACKAGES[name]
        assert row.availability == Availability(
            False, reason=f"not installed: {purpose}", remedy=remedy
        )
        assert remedy.startswith("pip install ")


def test_onnxruntime_stands_in_the_way_of_its_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch, "onnxruntime")
    row = rows_of("package")["onnxruntime-gpu"]
    assert "overwrite each other's files" in row.availability.reason
    assert row.availability.remedy.startswith("pip uninstall onnxruntime, then pip install")


def test_a_package_of_tensorrt_is_there_only_if_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch, "tensorrt", "torch")
    broken = Availability(False, reason="tensorrt does not load: libnvinfer.so.11", remedy="pip")
    monkeypatch.setattr(trt, "availability", lambda package: broken)
    rows = rows_of("package")
    assert rows["tensorrt"].availability == broken
    assert rows["torch"].availability == Availability(True, "1.0")


def test_a_missing_driver_is_told_in_full_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, NONE)
    rows = doctor.doctor().components
    assert [row.name for row in rows if row.availability.reason == NONE.reason] == ["NVIDIA driver"]
    (builder,) = [r for r in rows if (r.kind, r.name) == ("engine builder", "tensorrt")]
    assert builder.availability.reason == "takes an NVIDIA driver and GPU"
    assert "--target rtx" in builder.availability.remedy


def test_a_device_is_named_beside_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, Availability(True, "CUDA 13.2"), trt.Device("NVIDIA Test", 89))
    row = rows_of("environment")["NVIDIA driver"]
    assert row.availability == Availability(True, "CUDA 13.2, NVIDIA Test (sm89)")


def test_a_runtime_that_only_simulates_says_so_beside_its_version() -> None:
    simulated = rows_of("runtime")["tensorrt_network"].availability
    if not simulated.available:
        pytest.skip(f"tensorrt_network: {simulated.reason}")
    assert simulated.version.endswith(" (network, simulated)")


@pytest.mark.parametrize(
    ("installed", "warned"),
    [({"onnxruntime"}, False), ({"onnxruntime", "onnxruntime-gpu"}, True)],
)
def test_both_onnxruntime_packages_together_are_a_warning(
    installed: set[str], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_packages(monkeypatch, *installed)
    assert bool(doctor.doctor().warnings) == warned
