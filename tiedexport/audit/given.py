"""What an audit is given: names sorted by kind, and what goes together."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from tiedexport import live
from tiedexport.bundle import MANIFEST, Bundle, open_bundle
from tiedexport.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from typing import TypeAlias

    from torch import nn

    Thing: TypeAlias = str | Path | nn.Module

_KIND_OF_SUFFIX = {
    ".pt": "weights",
    ".pth": "weights",
    ".ckpt": "weights",
    ".bin": "weights",
    ".safetensors": "weights",
    ".onnx": "graph",
    ".plan": "plan",
    ".engine": "plan",
    ".trt": "plan",
}
_KINDS = (
    "a checkpoint (.pt), .safetensors, .onnx or a folder of them, a bundle (a folder), a plan "
    "(.plan, .engine, .trt) or package.module:factory"
)


@dataclass(frozen=True)
class Given:
    """The things of one audit, by kind; each kind answers for stages of its own.

    Attributes:
        module: `package.module:factory`, or the class of the instance that was given.
        instance: the live module itself.
        weights: checkpoints and safetensors files, looked at together.
        graphs: ONNX files, looked at together.
        bundle: in the place of `graphs`.
        plans: engine plans; the weights that they should hold come from the others.
        input_shape: of one item, for the live module.
        deep: also do what takes long.
    """

    module: str | None = None
    instance: nn.Module | None = None
    weights: tuple[Path, ...] = ()
    graphs: tuple[Path, ...] = ()
    bundle: Bundle | None = None
    plans: tuple[Path, ...] = ()
    input_shape: tuple[int, ...] | None = None
    deep: bool = False

    @cached_property
    def live(self) -> nn.Module | None:
        """The live module, made once.

        Raises:
            UsageError, BadInputError: it cannot be made.
        """
        if self.instance is not None or self.module is None:
            return self.instance
        return live.load_module(self.module)


def listed(things: Thing | Iterable[Thing]) -> tuple[Thing, ...]:
    """Several things, or one alone.

    Raises:
        UsageError: neither names nor live modules.
    """
    if isinstance(things, str | Path) or _is_module(things):
        return (things,)
    several = tuple(things) if isinstance(things, Iterable) else (things,)
    for thing in several:
        if not isinstance(thing, str | Path) and not _is_module(thing):
            got = f"{type(thing).__name__} {thing!r}"
            raise UsageError("cannot tell what this is", got=got, expected=_KINDS)
    return several


def label(thing: Thing) -> str:
    """What to call a thing."""
    return type(thing).__qualname__ if _is_module(thing) else str(thing)


def sort_out(
    things: Sequence[Thing],
    input_shape: Sequence[int] | None = None,
    deep: bool = False,
) -> Given:
    """Tell what each thing is, and refuse what does not go together.

    Raises:
        UsageError: a name is of no known kind, or things contradict each other.
        BadInputError: a file does not exist.
        BundleError: a folder is no sound bundle.
    """
    if not things:
        raise UsageError("nothing to audit", expected=_KINDS)
    instances = [thing for thing in things if _is_module(thing)]
    names = [str(thing) for thing in things if not _is_module(thing)]
    by_kind: dict[str, list[str]] = {"module": [label(one) for one in instances]}
    for part in _once(part for name in names for part in _opened(name)):
        by_kind.setdefault(_kind(part), []).append(part)
    by_kind = {kind: parts for kind, parts in by_kind.items() if parts}
    _refuse_contradictions(by_kind, input_shape)

    def paths(kind: str) -> tuple[Path, ...]:
        return tuple(map(Path, by_kind.get(kind, ())))

    return Given(
        module=by_kind["module"][0] if "module" in by_kind else None,
        instance=instances[0] if instances else None,
        weights=paths("weights"),
        graphs=paths("graph"),
        bundle=open_bundle(by_kind["bundle"][0]) if "bundle" in by_kind else None,
        plans=paths("plan"),
        input_shape=None if input_shape is None else tuple(input_shape),
        deep=deep,
    )


def _is_module(thing: object) -> TypeGuard[nn.Module]:
    """Without torch, which a deployment target need not have, nothing is one."""
    torch_nn = sys.modules.get("torch.nn")
    return torch_nn is not None and isinstance(thing, torch_nn.Module)


def _once(names: Iterable[str]) -> Iterator[str]:
    """Each file once, by the first of its names: two spellings or links are no second copy."""
    seen: set[Hashable] = set()
    for name in names:
        try:
            status = os.stat(name)
            identity: Hashable = status.st_dev, status.st_ino
        except OSError:
            identity = name
        if identity not in seen:
            seen.add(identity)
            yield name


def _opened(name: str) -> Sequence[str]:
    """The graphs of a folder that is no bundle, in the order of their names; else the name."""
    folder = Path(name)
    if not name or not folder.is_dir() or (folder / MANIFEST).exists():
        return [name]
    graphs = [str(path) for path in folder.iterdir() if path.suffix.lower() == ".onnx"]
    return sorted(graphs) or [name]


def _kind(thing: str) -> str:
    path = Path(thing)
    if not thing:
        raise UsageError("an empty name", expected=_KINDS)
    if path.is_dir():
        return "bundle"
    if not path.exists() and live.is_reference(thing):
        return "module"
    if path.exists() and not path.is_file():
        raise BadInputError("not a file", where=thing, got="a device, pipe or socket")
    suffix = path.suffix.lower()
    if suffix == ".pt2":
        quoted = shlex.quote(thing)
        raise UsageError(
            "a torch.export program is not audited as it is",
            where=thing,
            got="a program: its weights are only told by running it",
            expected=_KINDS,
            hint=f"tiedexport build {quoted}, then tiedexport audit "
            f"{shlex.quote(str(path.with_suffix('.tied')))}",
        )
    if suffix not in _KIND_OF_SUFFIX:
        raise UsageError(
            "cannot tell what this is",
            where=thing,
            got=f"the ending {path.suffix!r}" if path.suffix else "a name without an ending",
            expected=_KINDS,
        )
    if not path.is_file():
        raise BadInputError("no such file", where=thing)
    return _KIND_OF_SUFFIX[suffix]


def _refuse_contradictions(
    by_kind: dict[str, list[str]], input_shape: Sequence[int] | None
) -> None:
    for kind, name in (("bundle", "bundles"), ("module", "live modules")):
        if len(by_kind.get(kind, ())) > 1:
            raise UsageError(
                f"two {name} at once", got=", ".join(by_kind[kind]), expected="an audit of each"
            )
    if {"bundle", "graph"} <= by_kind.keys():
        raise UsageError(
            "a bundle and other ONNX files",
            got=", ".join(by_kind["bundle"] + by_kind["graph"]),
            expected="one or the other: a bundle has its own graphs",
        )
    if "plan" in by_kind and not by_kind.keys() & {"weights", "graph", "bundle"}:
        raise UsageError(
            "a plan alone does not tell which bytes are weights",
            got=", ".join(by_kind["plan"]),
            expected="the plan beside what it was built from: an .onnx file, a checkpoint, "
            "a .safetensors file or a bundle",
            hint=f"tiedexport audit {by_kind['plan'][0]} model.onnx",
        )
    if input_shape is None:
        return
    if "module" not in by_kind:
        raise UsageError("an input shape without a live module", got=list(input_shape))
    if not input_shape or min(input_shape) < 1:
        raise UsageError("no shape of an item", got=list(input_shape), expected="e.g. 1,28,28")
