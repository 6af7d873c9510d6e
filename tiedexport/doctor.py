"""`doctor`: what this machine can run and build, and what to install for the rest."""

from __future__ import annotations

from msgspec.structs import replace

from tiedexport import engines, environment, runtimes, trt
from tiedexport.results import Availability, Component, DoctorResult

_RIVALS = ("onnxruntime", "onnxruntime-gpu")

_TRAIN = "pip install 'tiedexport[train]'"
_GPU, _RTX = trt.REMEDIES["tensorrt"], trt.REMEDIES["tensorrt_rtx"]
_PACKAGES = {
    "torch": ("trains and exports models", _TRAIN),
    "onnx": ("writes graphs, and evaluates them as the reference", _TRAIN),
    "polygraphy": ("compares with other tools: polygraphy run --load-outputs", _TRAIN),
    "onnxruntime-gpu": ("runs bundles on a GPU through ONNX Runtime", _GPU),
    "tensorrt": ("builds engines for the GPU of the machine, and runs them", _GPU),
    "tensorrt-rtx": ("builds engines with or without a GPU, and runs them on one", _RTX),
    "cuda-core": ("brings weights and engines of both TensorRT packages to the GPU", _RTX),
}
"""Distribution → what it is for, and how it comes."""


def doctor() -> DoctorResult:
    """Ask every runtime and every engine builder whether it can work here."""
    rows = [Component("environment", "NVIDIA driver", _driver())]
    rows += [Component("package", name, _package(name)) for name in _PACKAGES]
    rows += [
        Component("runtime", name, _remarked(_told_once(runtime.availability()), runtime.remark))
        for name, runtime in runtimes.all_runtimes().items()
    ]
    rows += [
        Component(
            "engine builder",
            target,
            _told_once(engines.builder_for(target).availability(target)),
        )
        for target in engines.default_targets()
    ]
    return DoctorResult(tuple(rows), environment.current(), _warnings())


def _driver() -> Availability:
    """The driver, with the first device that it shows."""
    driver, device = trt.driver(), trt.device()
    if device is None:
        return driver
    return replace(
        driver, version=f"{driver.version}, {device.name} (sm{device.compute_capability})"
    )


def _package(name: str) -> Availability:
    """Whether a package is installed; those of TensorRT must load, too."""
    purpose, remedy = _PACKAGES[name]
    found = environment.installed_version(name)
    if found is not None:
        module = name.replace("-", "_")
        return trt.availability(module) if module in trt.OLDEST else Availability(True, found)
    if name == "onnxruntime-gpu" and environment.installed_version("onnxruntime"):
        purpose += "; it and onnxruntime overwrite each other's files"
        remedy = f"pip uninstall onnxruntime, then {remedy}"
    return Availability(False, reason=f"not installed: {purpose}", remedy=remedy)


def _told_once(availability: Availability) -> Availability:
    """Why there is no driver has a row of its own: others refer to it."""
    driver = trt.driver()
    if driver.available or availability.reason != driver.reason:
        return availability
    remedy = availability.remedy
    if remedy == driver.remedy:
        remedy = "see NVIDIA driver; without one, the runtime tensorrt_network evaluates engines' "
        remedy += "networks in numpy"
    return replace(availability, reason="takes an NVIDIA driver and GPU", remedy=remedy)


def _remarked(availability: Availability, remark: str) -> Availability:
    """With what must be said beside each of a runtime's results."""
    if not remark or not availability.available:
        return availability
    return replace(availability, version=f"{availability.version} ({remark})")


def _warnings() -> tuple[str, ...]:
    if all(environment.installed_version(package) for package in _RIVALS):
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall onnxruntime onnxruntime-gpu, then install the extra cpu or gpu",
        )
    return ()
