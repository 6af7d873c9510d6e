"""Deploy weight-tied neural networks with one physical copy of every weight.

`open_session` runs a bundle, `open_bundle` opens and checks one; each verb of the command line is
a function of the module of its name, such as `tiedexport.train.train`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle, open_bundle
    from tiedexport.errors import TiedExportError
    from tiedexport.session import Session, open_session

__all__ = ["Bundle", "Session", "TiedExportError", "__version__", "open_bundle", "open_session"]

# Looked up when first used, so that the command line answers --help without loading numpy.
_HOMES = {
    "Bundle": "bundle",
    "Session": "session",
    "TiedExportError": "errors",
    "open_bundle": "bundle",
    "open_session": "session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
