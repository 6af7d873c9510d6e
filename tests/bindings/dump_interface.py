"""Run by itself: import a package of bindings and write its classes as JSON, with pybind's docs.

python dump_interface.py PACKAGE [FOLDER]
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def classes_of(owner: Any) -> dict[str, type]:
    """Every class that hangs off a module or a class of it, by its dotted name there."""
    found: dict[str, type] = {}
    for value in vars(owner).values():
        if isinstance(value, type) and "tensorrt" in value.__module__:
            nested = isinstance(owner, type) and value.__qualname__.startswith(owner.__qualname__)
            if nested or not isinstance(owner, type):
                found |= {value.__qualname__: value, **classes_of(value)}
    return found


def members_of(kind: type) -> dict[str, dict[str, Any]]:
    """What instances of a class have: methods, properties, values."""
    found = {}
    for name in dir(kind):
        value = next(vars(base)[name] for base in kind.__mro__ if name in vars(base))
        if isinstance(value, property):
            doc = (value.fget and value.fget.__doc__) or ""
            found[name] = {"kind": "property", "doc": doc, "settable": value.fset is not None}
        elif isinstance(value, kind):
            found[name] = {"kind": "member"}
        elif isinstance(value, type):
            found[name] = {"kind": "class", "name": value.__qualname__}
        else:
            doc = getattr(getattr(kind, name), "__doc__", "") or ""
            found[name] = {"kind": "method" if callable(value) else "value", "doc": doc}
    return found


def main(package: str, *folder: str) -> None:
    """Write the interface of a package, perhaps of one in a folder."""
    sys.path[:0] = folder
    module = importlib.import_module(package)
    classes = classes_of(module)
    interface = {
        "version": module.__version__,
        "names": {
            name: type(value).__qualname__
            for name, value in vars(module).items()
            if not isinstance(value, type)
        },
        "classes": {name: members_of(kind) for name, kind in classes.items()},
        "bases": {n: [base.__qualname__ for base in kind.__mro__] for n, kind in classes.items()},
    }
    json.dump(interface, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
