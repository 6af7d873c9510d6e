"""The CUDA driver of this machine: whether it works, what it shows, whom it can serve."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from tiedexport.results import Availability
from tiedexport.trt.once import once

DRIVER_FOR_CUDA = {11: 450, 12: 525, 13: 580}
"""CUDA major → the oldest driver that serves its programs (NVIDIA, CUDA Compatibility, table 1)."""

_LIBCUDA = "libcuda.so.1"
_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NO_DRIVER_REMEDY = "install the NVIDIA display driver on a machine with an NVIDIA GPU"
_NO_DEVICE = 100
_REMEDIES = {
    34: "take the CUDA toolkit's stubs out of LD_LIBRARY_PATH: they serve linking only",
    35: "update the NVIDIA driver",
    46: "nvidia-smi shows which process holds the GPU for itself alone",
    _NO_DEVICE: "nvidia-smi must list a GPU; start containers with --gpus all",
    802: "systemctl start nvidia-fabricmanager, which GPUs behind NVSwitch wait for",
    803: "reboot: the driver was updated, and its library and its kernel module differ",
    804: "take the cuda-compat libraries out of LD_LIBRARY_PATH: they do not serve this GPU",
    999: "nvidia-modprobe -u -c=0, or reboot; dmesg tells more",
}


@dataclass(frozen=True)
class Device:
    """The first GPU that the driver shows; compute capability 8.9 is 89."""

    name: str
    compute_capability: int


@dataclass(frozen=True)
class _Found:
    driver: Availability
    device: Device | None = None
    cuda: int = 0
    """As the driver has it: 13020 is 13.2."""


def driver() -> Availability:
    """Whether there is a CUDA driver with at least one device."""
    return _probe().driver


def device() -> Device | None:
    """The first device, or None where `driver` says that there is none."""
    return _probe().device


def driver_for(package: str) -> Availability:
    """Whether there is a driver, and whether it is new enough for a package as installed here."""
    found, needed = _probe(), _cuda_major(package)
    if not found.driver.available or needed is None or found.cuda // 1000 >= needed:
        return found.driver
    newest = DRIVER_FOR_CUDA.get(needed)
    return Availability(
        False,
        found.driver.version,
        reason=f"the driver serves programs up to {found.driver.version}, and "
        f"{package.replace('_', '-')} here was built with CUDA {needed}",
        remedy=f"update the NVIDIA driver to {newest} or newer"
        if newest
        else f"update the NVIDIA driver to one for CUDA {needed}",
    )


def _cuda_major(package: str) -> int | None:
    """The CUDA that a package was built with, by the name of the wheel behind it."""
    name = package.replace("_", "-")
    try:
        wheels = " ".join(requires(name) or ())
    except PackageNotFoundError:
        wheels = ""
    if found := re.search(rf"\b{package}_cu(\d+)", wheels.replace("-", "_")):
        return int(found[1])
    for major in sorted(DRIVER_FOR_CUDA, reverse=True):
        try:
            version(f"{name}-cu{major}")
        except PackageNotFoundError:
            continue
        return major
    return None


@once
def _probe() -> _Found:
    """Ask the driver: it must load, initialise, and show a device."""
    try:
        cuda = ctypes.CDLL(_LIBCUDA)
    except OSError as error:
        return _unavailable(f"no CUDA driver ({error})")
    try:
        return _asked(cuda)
    except AttributeError as error:  # a symbol is missing
        return _unavailable(f"{_LIBCUDA} is no CUDA driver, or a broken one ({error})")


def _asked(cuda: ctypes.CDLL) -> _Found:
    if (code := cuda.cuInit(0)) != 0:
        return _refused(f"the CUDA driver does not start ({_words(cuda, code)})", code)
    count, number = ctypes.c_int(), ctypes.c_int()
    if (code := cuda.cuDeviceGetCount(ctypes.byref(count))) != 0:
        return _refused(f"the CUDA driver does not count devices ({_words(cuda, code)})", code)
    if count.value < 1:
        return _refused("the CUDA driver shows no device", _NO_DEVICE)
    if (code := cuda.cuDriverGetVersion(ctypes.byref(number))) != 0:
        return _refused(f"the CUDA driver does not tell its version ({_words(cuda, code)})", code)
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    for code in (
        cuda.cuDeviceGet(ctypes.byref(handle), 0),
        cuda.cuDeviceGetName(name, len(name), handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR_ATTRIBUTE, handle),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR_ATTRIBUTE, handle),
    ):
        if code != 0:
            return _refused(
                f"the CUDA driver does not show its device ({_words(cuda, code)})", code
            )
    return _Found(
        Availability(True, f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"),
        Device(name.value.decode("utf-8", "replace"), 10 * major.value + minor.value),
        number.value,
    )


def _words(cuda: ctypes.CDLL, code: int) -> str:
    words = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(words))
    return f"error {code}: {(words.value or b'unknown').decode()}"


def _refused(reason: str, code: int) -> _Found:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if code == _NO_DEVICE and hidden is not None:
        return _unavailable(
            f"{reason}, with CUDA_VISIBLE_DEVICES={hidden!r}",
            "unset CUDA_VISIBLE_DEVICES, or name a device that nvidia-smi lists",
        )
    return _unavailable(
        reason, _REMEDIES.get(code, "nvidia-smi must work; if not, reinstall the driver")
    )


def _unavailable(reason: str, remedy: str = _NO_DRIVER_REMEDY) -> _Found:
    return _Found(Availability(False, reason=reason, remedy=remedy))
