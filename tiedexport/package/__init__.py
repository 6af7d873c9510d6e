"""Bundles in the form that servers and clusters take.

A format is a file of this package whose name has no underscore; what else it needs lies beside it,
as `NAME_*.py`. It has `Options`, a dataclass of what it may be told, and
`write(bundle, output, options)`, which returns a `Packaged`.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import UsageError


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Attributes:
        output: the folder.
        models: the models in it that a server will have.
        version: theirs.
        next: the command to type.
    """

    output: Path
    models: tuple[str, ...]
    version: int
    next: str


def formats() -> tuple[str, ...]:
    """The names that `package` takes."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if "_" not in name))


def package(
    bundle: Bundle | str | Path, output: str | Path, format: str = "triton", **options: Any
) -> Packaged:
    """Write a bundle in the form that a server or a cluster takes.

    Args:
        bundle: an open bundle, or the path of one (then every hash is checked).
        output: the folder to write, or to add a version to.
        format: one of `formats()`.
        options: fields of the format's `Options`.

    Raises:
        BundleError: the bundle is damaged, or has not what the options ask for.
        UsageError: the format or an option is unknown, or what stands in `output` does not fit.
    """
    if format not in formats():
        raise UsageError("unknown format", got=repr(format), expected=", ".join(formats()))
    module = importlib.import_module(f"{__name__}.{format}")
    known = [field.name for field in fields(module.Options)]
    if foreign := options.keys() - set(known):
        raise UsageError(
            f"options that {format} does not have",
            got=", ".join(sorted(foreign)),
            expected=", ".join(known),
        )
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if Path(output).resolve().is_relative_to(opened.path.resolve()):
        raise UsageError("a bundle holds what its manifest lists", where=output, hint="-o models")
    written: Packaged = module.write(opened, Path(output), module.Options(**options))
    return written
