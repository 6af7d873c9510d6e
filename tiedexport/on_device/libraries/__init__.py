"""Libraries that enqueue a stage on a stream: each file lists, by runtime, in `SUBJECTS` what does.

They are found by importlib: nothing here loads a library before its work is timed.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.on_device.work import Subject
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision

    Opener = Callable[[Cuda, Bundle, Precision, Memory], Subject]


@cache
def all_subjects() -> dict[str, Opener]:
    """Runtime → what loads a bundle for it, to run on the stream of a clock."""
    found: dict[str, Opener] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").SUBJECTS
    return found
