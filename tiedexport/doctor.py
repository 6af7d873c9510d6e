"""`doctor`: what this machine can run and build, and what to install for the rest."""

from __future__ import annotations

from tiedexport import engines, environment, runtimes, trt
from tiedexport.results import Component, DoctorResult

_RIVALS = ("onnxruntime", "onnxruntime-gpu")


def doctor() -> DoctorResult:
    """Ask every runtime and every engine builder whether it can work here."""
    rows = [Component("environment", "NVIDIA driver", trt.driver())]
    rows += [
        Component("runtime", name, runtime.availability())
        for name, runtime in runtimes.all_runtimes().items()
    ]
    rows += [
        Component("engine builder", target, engines.builder_for(target).availability(target))
        for target in engines.default_targets()
    ]
    return DoctorResult(tuple(rows), environment.current(), _warnings())


def _warnings() -> tuple[str, ...]:
    if all(environment.installed_version(package) for package in _RIVALS):
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall onnxruntime onnxruntime-gpu, then install the extra cpu or gpu",
        )
    return ()
