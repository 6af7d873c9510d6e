"""What an audit is given: names sorted by kind, and what goes together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport import live
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

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
    "a checkpoint (.pt), .safetensors, .onnx, a bundle (a folder), a plan (.plan, .engine, .trt) "
    "or package.module:factory"
)


@dataclass(frozen=True)
class Given:
    """The things of one audit, by kind; each kind answers for stages of its own.

    Attributes:
        module: `package.module:factory`.
        weights: checkpoints and safetensors files, looked at together.
        graphs: ONNX files, looked at together.
        bundle: in the place of `graphs`.
        plans: engine plans; the weights that they should hold come from the others.
        input_shape: of one item, for the live module.
        deep: also do what takes long.
    """

    module: str | None = None
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
        return None if self.module is None else live.load_module(self.module)


def sort_out(
    things: Sequence[str | Path],
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
    by_kind: dict[str, list[str]] = {}
    for thing in dict.fromkeys(map(str, things)):
        by_kind.setdefault(_kind(thing), []).append(thing)
    _refuse_contradictions(by_kind, input_shape)

    def paths(kind: str) -> tuple[Path, ...]:
        return tuple(map(Path, by_kind.get(kind, ())))

    return Given(
        module=by_kind["module"][0] if "module" in by_kind else None,
        weights=paths("weights"),
        graphs=paths("graph"),
        bundle=open_bundle(by_kind["bundle"][0]) if "bundle" in by_kind else None,
        plans=paths("plan"),
        input_shape=None if input_shape is None else tuple(input_shape),
        deep=deep,
    )


def _kind(thing: str) -> str:
    path = Path(thing)
    if path.is_dir():
        return "bundle"
    if not path.exists() and live.is_reference(thing):
        return "module"
    kind = _KIND_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        build_it = f"tiedexport build {thing}, then audit the bundle"
        raise UsageError(
            "cannot tell what this is",
            where=thing,
            got=f"the ending {path.suffix!r}",
            expected=_KINDS,
            hint=build_it if path.suffix == ".pt2" else None,
        )
    if not path.is_file():
        raise BadInputError("no such file", where=thing)
    return kind


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
