"""Live modules by name: `package.module:factory`, as entry points are written."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from torch import nn

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_REFERENCE = re.compile(rf"({_DOTTED}):({_DOTTED})")


def is_reference(text: str) -> bool:
    """Whether a name is written as `package.module:factory`."""
    return _REFERENCE.fullmatch(text) is not None


def load_module(reference: str) -> nn.Module:
    """Import and make a module; its code is run, as any import runs it.

    Args:
        reference: "package.module:name", importable from the current folder or the environment;
            the name is an `nn.Module`, its class, or a function that returns one, called without
            arguments.

    Raises:
        UsageError: it is not written so, or names nothing that exists.
        BadInputError: the code raised, or what it made is no `nn.Module`.
    """
    from torch import nn

    found = _imported(reference)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise BadInputError(
                "not a module, nor something that makes one",
                where=reference,
                got=type(found).__name__,
                expected="an nn.Module, its class, or a function that returns one",
            )
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise _raised("making the module failed", reference, error) from error
    if not isinstance(found, nn.Module):
        raise BadInputError(
            "the factory made no module",
            where=reference,
            got=type(found).__name__,
            expected="an nn.Module",
        )
    return found


def _imported(reference: str) -> object:
    matched = _REFERENCE.fullmatch(reference)
    if matched is None:
        raise UsageError(
            "not the name of a live module", got=repr(reference), expected="package.module:factory"
        )
    name, path = matched.groups()
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _raised("importing the module failed", reference, error) from error
        raise UsageError(
            "no such Python module",
            where=reference,
            got=error.name,
            expected=f"a module in {here} or in this environment",
        ) from error
    except (Exception, SystemExit) as error:
        raise _raised("importing the module failed", reference, error) from error
    try:
        return reduce(getattr, path.split("."), module)
    except AttributeError as error:
        names = [key for key in vars(module) if not key.startswith("_")]
        raise UsageError(
            "the Python module has no such name",
            where=reference,
            got=path,
            expected=", ".join(names[:12]) or "a name that it defines",
        ) from error


def _raised(what: str, reference: str, error: BaseException) -> BadInputError:
    """An error of somebody else's code, with the line of that code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return BadInputError(what, where=f"{reference}{at}", got=repr(error))
