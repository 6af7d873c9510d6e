"""The manifest of a bundle: its schema, and the digest that guards its own bytes."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from tiedexport.engine_options import EngineOptions
from tiedexport.engine_words import Profile
from tiedexport.errors import BundleError
from tiedexport.spec import WEIGHTED_OPS, Precision, StageSpec, Tie, TrainingRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 2
"""The newest schema that this release writes; it reads this one and every earlier one."""

_DIGEST_KEY = b',\n  "digest": "'
_DIGEST_END = b'"\n}\n'


class FileRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file of the bundle."""

    size_bytes: int
    sha256: str


class Binding(Struct, frozen=True, forbid_unknown_fields=True):
    """One input, output or weight of an engine; `weight` names a tensor of the weights file."""

    name: str
    role: str
    dtype: Precision
    shape: tuple[int, ...]


class PlanRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One engine and what made it.

    Attributes:
        file: path inside the bundle.
        target: as asked for, "rtx:sm89" or "tensorrt".
        package, package_version: the builder, which must also be the runtime.
        compute_capabilities: e.g. (89,); the devices that may run it.
        weights: "shared" (as input bindings), "baked", or "one-plan" (encoder and decoder are two
            halves of this plan, which runs every stage; `stage` is then "autoencoder").
        options: what else the builder was told.
        graph: path inside the bundle of the ONNX graph that it was parsed from; empty in schema 1.
        graph_sha256: its digest.
        layers: the network that the parser made of it, a line a layer.
        key: digest of all that determines the plan; one with this key need not be built again.
    """

    file: str
    stage: str
    precision: Precision
    target: str
    package: str
    package_version: str
    compute_capabilities: tuple[int, ...]
    weights: str
    bindings: tuple[Binding, ...]
    graph_sha256: str
    options: EngineOptions = EngineOptions()
    graph: str = ""
    layers: tuple[str, ...] = ()
    key: str = ""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """Smallest, typical and largest batch of each profile."""
        return self.options.profiles


class Tolerance(Struct, frozen=True, forbid_unknown_fields=True):
    """A summary of the derived bound on the first golden output of one stage and precision.

    `verify` derives the bound of every element again; these figures are for readers of the manifest
    and for hosts that compare with one number: the largest and the median over the output.
    """

    stage: str
    precision: Precision
    accumulation: Precision
    lambda_: float
    largest_bound: float
    median_bound: float


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a bundle says of itself.

    Attributes:
        schema: of the manifest, which grows with each release that changes it.
        generator: the release that wrote it.
        created: when, in UTC (ISO 8601).
        family, config: what was built, and its fields as in a recipe.
        sample_shape: of one sample as the data had it.
        opset: of the graphs.
        parameter_count: each tied one counted once.
        golden: file name of the reference inputs and outputs.
        training: how the model was trained; null of one that was made elsewhere.
        versions: package → version that took part.
        graphs: precision → stage → file name of the ONNX graph.
        weights: precision → file name of the safetensors file, each parameter once.
        io_dtype: type of every stage's inputs and outputs.
        files: path inside the bundle → size and digest, for every file but the manifest.
        kept: precision → weight → the type that it, its layers and their biases have instead.
    """

    schema: int
    generator: str
    created: str
    name: str
    family: str
    config: dict[str, Any]
    sample_shape: tuple[int, ...]
    io_dtype: Precision
    opset: int
    parameter_count: int
    stages: tuple[StageSpec, ...]
    ties: tuple[Tie, ...]
    weights: dict[Precision, str]
    graphs: dict[Precision, dict[str, str]]
    plans: tuple[PlanRecord, ...]
    golden: str
    tolerances: tuple[Tolerance, ...]
    training: TrainingRecord | None
    versions: dict[str, str]
    files: dict[str, FileRecord]
    kept: dict[Precision, dict[str, Precision]] = {}

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that weights and graphs are stored in."""
        return tuple(self.weights)

    @property
    def weights_sha256(self) -> dict[Precision, str]:
        """Digests of the weights: what tells two trainings of one model apart."""
        return {kind: self.files[file].sha256 for kind, file in self.weights.items()}

    @property
    def engine_files(self) -> frozenset[str]:
        """Files that are there for engines alone: plans, and graphs that no stage has."""
        of_stages = {file for graphs in self.graphs.values() for file in graphs.values()}
        return frozenset({f for p in self.plans for f in (p.file, p.graph) if f} - of_stages)

    def stage(self, name: str) -> StageSpec:
        """The stage of that name.

        Raises:
            BundleError: the bundle has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise BundleError("no such stage", where=self.name, got=name, expected=known)

    def weight_names(self, precision: Precision) -> set[str]:
        """Every weight that a layer, or an engine of this precision, reads."""
        layers = [layer for stage in self.stages for layer in stage.layers]
        bound = [b for plan in self.plans if plan.precision == precision for b in plan.bindings]
        return {
            *(name for layer in layers for name in (layer.weight, layer.bias) if name is not None),
            *(binding.name for binding in bound if binding.role == "weight"),
        }


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON whose last member is the SHA-256 of all bytes before that member."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=2).removesuffix(b"\n}")
    digest = hashlib.sha256(body).hexdigest().encode()
    return body + _DIGEST_KEY + digest + _DIGEST_END


def decode_manifest(raw: bytes, where: object) -> Manifest:
    """Check the digest, then the schema, then every field and file name, then that they agree.

    Raises:
        BundleError: the bytes are damaged, of a newer schema, contradict themselves, or name a
            file outside the bundle.
    """
    body, key, tail = raw.rpartition(_DIGEST_KEY)
    digest = hashlib.sha256(body).hexdigest()
    if not key or tail != digest.encode() + _DIGEST_END:
        raise BundleError(
            "the manifest is damaged or was edited",
            where=where,
            got=f"a digest {tail[:64].decode('ascii', 'replace')!r}" if key else "no digest",
            expected=digest if key else "the digest of its bytes as its last member",
            hint="copy the bundle again, or rebuild it: tiedexport build model.pt",
        )
    try:
        schema = _known_schema(body + b"\n}", where)
        fields = msgspec.json.decode(body + b"\n}")
        if schema == 1:
            _upgrade_from_1(fields)
        manifest = msgspec.convert(fields, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("the manifest is not valid", where=where, got=str(error)) from error
    named = {
        manifest.golden,
        *manifest.weights.values(),
        *(file for graphs in manifest.graphs.values() for file in graphs.values()),
        *(file for plan in manifest.plans for file in (plan.file, plan.graph) if file),
    }
    if missing := named - manifest.files.keys():
        raise BundleError("files without a digest", where=where, got=", ".join(sorted(missing)))
    for name in manifest.files:
        _refuse_unsafe_name(name, where)
    if faults := list(_contradictions(manifest)):
        raise BundleError("the manifest contradicts itself", where=where, got="; ".join(faults[:3]))
    return manifest


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What the types cannot tell: fields that readers combine without looking again."""
    stages = {stage.name: stage for stage in manifest.stages}
    if not stages or len(stages) != len(manifest.stages):
        yield "no stage, or two of one name"
    if not manifest.weights or manifest.weights.keys() != manifest.graphs.keys():
        yield "weights and graphs of different precisions, or none"
    for precision, graphs in manifest.graphs.items():
        if graphs.keys() != stages.keys():
            yield f"graphs in {precision} of {', '.join(graphs)}, stages {', '.join(stages)}"
    for stage in manifest.stages:
        yield from _contradictions_of(stage, manifest)
    for plan in manifest.plans:
        if plan.stage not in stages or plan.precision not in manifest.weights:
            yield f"{plan.file} is of an unknown stage or precision"
    for precision, kept in manifest.kept.items():
        weights = {layer.weight for stage in manifest.stages for layer in stage.layers}
        if precision not in manifest.weights or kept.keys() - weights:
            yield f"other types in {precision} for {', '.join(kept)}"


def _contradictions_of(stage: StageSpec, manifest: Manifest) -> Iterator[str]:
    if (len(stage.inputs), len(stage.outputs)) != (1, 1):
        yield f"stage {stage.name} has not exactly one input and one output"
    for spec in (*stage.inputs, *stage.outputs):
        batch, *element = spec.shape or (0,)
        if not isinstance(batch, str) or not all(isinstance(n, int) and n > 0 for n in element):
            yield f"{spec}: the batch axis alone is dynamic, and the first"
        elif stage.name == "autoencoder" and math.prod(spec.element_shape) != math.prod(
            manifest.sample_shape
        ):
            yield f"{spec} does not hold a sample of {list(manifest.sample_shape)}"
    for layer in stage.layers:
        if layer.op in WEIGHTED_OPS and layer.weight is None:
            yield f"a {layer.op} layer of stage {stage.name} has no weight"


def _upgrade_from_1(fields: dict[str, Any]) -> None:
    """Schema 1 knew one profile a plan and no options."""
    for plan in fields.get("plans", ()):
        plan["options"] = {"profiles": [plan.pop("profile")]}


def _known_schema(document: bytes, where: object) -> int:
    class Header(Struct):
        schema: int
        generator: str

    header = msgspec.json.decode(document, type=Header)
    if 1 <= header.schema <= SCHEMA:
        return header.schema
    version = re.fullmatch(r"tiedexport (\d+(\.\d+)*((a|b|rc)\d+)?)", header.generator)
    raise BundleError(
        "the bundle was written by a newer tiedexport"
        if header.schema > SCHEMA
        else "the bundle has a schema that never was",
        where=where,
        got=f"schema {header.schema} of {header.generator!r}",
        expected=f"schema 1 to {SCHEMA}",
        hint=f"pip install 'tiedexport>={version[1]}'"
        if version and header.schema > SCHEMA
        else "pip install --upgrade tiedexport",
    )


def _refuse_unsafe_name(name: str, where: object) -> None:
    parts = PurePosixPath(name).parts
    plain = bool(parts) and "/".join(parts) == name and ".." not in parts
    if not plain or name.startswith("/") or "\\" in name or ":" in name or "\0" in name:
        raise BundleError(
            "a file name that could leave the bundle",
            where=where,
            got=repr(name),
            expected="a relative path without '..'",
        )
