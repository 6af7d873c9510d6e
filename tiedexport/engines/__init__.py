"""The contract of an engine builder, and the registry of those that exist.

Every file in this package lists its builders in `BUILDERS`. Other packages add theirs through the
entry-point group `tiedexport.engines`, each entry naming a module with such a list.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from tiedexport.engine_options import EngineOptions
from tiedexport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tiedexport.engine_words import Weights
    from tiedexport.manifest import Binding
    from tiedexport.results import Availability
    from tiedexport.spec import Precision, StageSpec

Progress = Callable[[str, int, int], None]
"""Called with a phase of the build, how many of its steps are done, and how many it has.

Phases are nested and can come again; the first one holds all the others and never goes back.
"""


@dataclass(frozen=True)
class EngineRequest:
    """One engine to build.

    Attributes:
        stage: the part of the model that the graph computes. For "one-plan" it has the layers of
            the encoder, then those of the decoder; its inputs are theirs, the decoder's under the
            name `spec.CODE_IN`, and its outputs are theirs.
        precision: the type that its matrix products and convolutions must have.
        kept: weight → the type that its products must have instead.
        target: which devices to build for, as the user wrote it: "rtx:sm89", "tensorrt".
        graph: a serialised ONNX graph, or the path of one with its external data beside it.
        weights: "shared" makes every weight an input binding; "baked" stores it in the plan;
            "one-plan" stores it in one plan whose halves encode and decode independently, the idle
            one with an empty batch.
        weight_names: every parameter of the model; those that the graph takes become weights.
        options: what else the builder is told.
        timing_cache: a file of measured kernels that the build reads and adds to.
    """

    stage: StageSpec
    precision: Precision
    target: str
    graph: Path | bytes
    weights: Weights = "shared"
    weight_names: tuple[str, ...] = ()
    options: EngineOptions = field(default_factory=EngineOptions)
    kept: Mapping[str, Precision] = field(default_factory=dict)
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Engine:
    """A built plan and what a runtime has to know to run it.

    Attributes:
        plan: the serialised engine; a large one may be a view of a file.
        package, package_version: the builder, which must also be the runtime.
        compute_capabilities: the devices that may run it, 8.9 as 89.
        bindings: inputs, weights, then outputs; a batch axis is -1.
        options: those that it was really built with, which can differ from those asked for.
        layers: the parsed network, a line a layer: kind, name, types.
        notes: what the user should know of how it was built, a line each.
    """

    plan: bytes | memoryview
    package: str
    package_version: str
    compute_capabilities: tuple[int, ...]
    bindings: tuple[Binding, ...]
    options: EngineOptions = field(default_factory=EngineOptions)
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class EngineBuilder(Protocol):
    """One package that builds engines.

    Attributes:
        name: the package.
        forms: how its targets are written, for error messages.
    """

    name: str
    forms: str

    def accepts(self, target: str) -> bool:
        """Whether a target is written in one of this builder's forms."""
        ...

    def default_targets(self) -> tuple[str, ...]:
        """What a build that names no target should try on this machine."""
        ...

    def availability(self, target: str) -> Availability:
        """Whether this machine can build for a target; if not, why and how to go on."""
        ...

    def fingerprint(self, target: str) -> tuple[str, ...]:
        """Package, version, devices: where these and the request are equal, so is what a plan does.

        Asked for only where the target is available.
        """
        ...

    def refusal(self, request: EngineRequest) -> str | None:
        """Why the target, though available, cannot have this engine; or None."""
        ...

    def build(self, request: EngineRequest, progress: Progress | None = None) -> Engine:
        """Build one engine.

        Raises:
            MissingRuntimeError: the target is not available.
            UsageError: the target cannot have this engine.
            RuntimeFailedError: parser or builder refused, in the library's own words.
        """
        ...


@cache
def all_builders() -> tuple[EngineBuilder, ...]:
    """Every engine builder, whether or not it can work here."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    names += [entry.value for entry in entry_points(group="tiedexport.engines")]
    return tuple(row for name in names for row in importlib.import_module(name).BUILDERS)


def builder_for(target: str) -> EngineBuilder:
    """The builder whose targets are written like this one.

    Raises:
        UsageError: there is none.
    """
    for builder in all_builders():
        if builder.accepts(target):
            return builder
    raise UsageError(
        "unknown target",
        got=repr(target),
        expected="; ".join(builder.forms for builder in all_builders()),
        hint="tiedexport build model.pt --target rtx",
    )


def default_targets() -> tuple[str, ...]:
    """What a build that names no target should try on this machine, over all builders."""
    return tuple(target for builder in all_builders() for target in builder.default_targets())
