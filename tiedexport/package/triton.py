"""`--format triton`: a model repository of Triton Inference Server.

A bundle NAME becomes the models NAME_encoder, NAME_decoder and NAME_autoencoder. The bundle itself,
manifest and hashes and all, lies once in each version of NAME_autoencoder; the other models read it
there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from tiedexport import atomic
from tiedexport.bundle import MANIFEST
from tiedexport.errors import UsageError
from tiedexport.package import Packaged, triton_server
from tiedexport.package.triton_config import Value, Word, text
from tiedexport.runtimes import runtime_named
from tiedexport.session import refuse_threads

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle

BUNDLE = "bundle.tied"
"""The bundle's folder in a version of the autoencoder."""
STAGES = ("autoencoder", "decoder", "encoder")
"""In the order in which a new version is to be written and loaded: what an encoder answers with,
its decoder can already decode."""
BACKENDS = ("python", "onnxruntime", "tensorrt")
KEPT_VERSIONS = 2
"""Versions that are served at once: who encoded with the last one can still decode with it."""


@dataclass(frozen=True)
class Options:
    """How the models are served.

    Attributes:
        backend: Triton's backend: "python" runs tiedexport's sessions, "onnxruntime" the graphs,
            "tensorrt" the engines that hold their weights.
        name: the models' first name; by default the bundle's.
        runtime, precision, threads: of each instance, as `open_session` takes them.
        instances: of each model, each able to compute a batch at once.
        device: "cpu" or "gpu"; by default what the backend is for, "gpu" for tensorrt alone.
        max_batch: rows of the largest batch that the server puts together.
        preferred_batch: sizes at which it waits for no more rows.
        queue_delay_us: how long the first row of a batch waits for others, in µs.
        check: "hash" or "size", as `open_bundle` takes it, by each instance that starts.
        server: URL of a running server, which is told to load what was written.
    """

    backend: str = "python"
    name: str | None = None
    runtime: str = "auto"
    precision: str | None = None
    threads: int = 1
    instances: int = 1
    device: str | None = None
    max_batch: int = 64
    preferred_batch: tuple[int, ...] = ()
    queue_delay_us: int = 100
    check: str = "hash"
    server: str | None = None


class Backend(Protocol):
    """One of Triton's backends, for one bundle.

    Raises:
        BundleError: the bundle has not what it needs.
        UsageError: an option is not for it.
    """

    def __init__(self, bundle: Bundle, options: Options) -> None: ...

    def config(self, stage: str) -> dict[str, Value]:
        """Its fields of the configuration of a stage's model: `input` and `output` among them."""
        ...

    def fill(self, stage: str, version: Path, whole: Path) -> None:
        """Write what it loads into a version's folder; `whole` is the bundle in the repository."""
        ...


def write(bundle: Bundle, output: Path, options: Options) -> Packaged:
    """Write the three models, or a new version of them into a repository that has them.

    A bundle that is the newest version already is not written again; the configuration is. Each
    version of a model appears whole, the encoder's last.

    Raises:
        BundleError: the bundle has not what the backend needs.
        UsageError: an option is out of range, or the repository's models are of another backend or
            interface.
    """
    name = model_name(options.name or bundle.manifest.name)
    device = options.device or ("gpu" if options.backend == "tensorrt" else "cpu")
    options = replace(options, name=name, device=device)
    _refuse_mistakes(options)
    backend = import_module(f"tiedexport.package.triton_{options.backend}").Backend(bundle, options)
    models = {stage: output / f"{name}_{stage}" for stage in STAGES}
    configs = {stage: _config(models[stage].name, stage, backend, options) for stage in STAGES}
    output.mkdir(parents=True, exist_ok=True)
    with atomic.locked(output):
        for stage, folder in models.items():
            _refuse_another_interface(folder / "config.pbtxt", configs[stage], output)
        version = _version(bundle, models)
        home = models["autoencoder"] / str(version) / BUNDLE
        for stage, folder in models.items():
            atomic.write(folder / "config.pbtxt", text(configs[stage]).encode())
            if not (folder / str(version)).exists():
                with atomic.replacing_directory(folder / str(version)) as staging:
                    whole = _copied(bundle, staging) if stage == "autoencoder" else home
                    backend.fill(stage, staging, whole)
    loaded = tuple(folder.name for folder in models.values())
    if options.server is not None:
        triton_server.load(options.server, loaded)
    command = ("tritonserver", f"--model-repository={output.resolve()}")
    explicit = ("--model-control-mode=explicit", "--load-model=*")
    return Packaged(output, loaded, version, shlex.join([*command, *explicit]))


def model_name(name: str) -> str:
    """A bundle's name as one of a model, a folder and a part of a URL.

    Raises:
        UsageError: nothing of it would be left.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-")
    if not plain:
        raise UsageError("no name for a model", got=repr(name), hint="give one: --name digits")
    return plain


def _refuse_mistakes(options: Options) -> None:
    if options.backend not in BACKENDS:
        raise UsageError("unknown backend", got=repr(options.backend), expected=", ".join(BACKENDS))
    if options.device not in ("cpu", "gpu"):
        raise UsageError("unknown device", got=repr(options.device), expected="cpu or gpu")
    if options.check not in ("hash", "size"):
        raise UsageError("unknown check", got=repr(options.check), expected="hash or size")
    if options.runtime != "auto":
        runtime_named(options.runtime)
    refuse_threads(options.threads)
    if options.server is not None:
        triton_server.refuse_no_url(options.server)
    smallest = min(options.instances, options.max_batch, *options.preferred_batch)
    if smallest < 1 or options.queue_delay_us < 0:
        raise UsageError("a batch, an instance and a wait cannot be of nothing", got=options)
    if max(options.preferred_batch, default=1) > options.max_batch:
        raise UsageError(
            "a preferred batch that is never put together",
            got=max(options.preferred_batch),
            expected=f"at most the largest batch, {options.max_batch}",
        )


def _config(name: str, stage: str, backend: Backend, options: Options) -> dict[str, Value]:
    batching: dict[str, Value] = {"max_queue_delay_microseconds": options.queue_delay_us}
    if options.preferred_batch:
        batching["preferred_batch_size"] = list(options.preferred_batch)
    kind = Word(f"KIND_{options.device}".upper())
    return {
        "name": name,
        "max_batch_size": options.max_batch,
        "version_policy": {"latest": {"num_versions": KEPT_VERSIONS}},
        "instance_group": {"count": options.instances, "kind": kind},
        "dynamic_batching": batching,
        **backend.config(stage),
    }


def _refuse_another_interface(place: Path, config: dict[str, Value], output: Path) -> None:
    """All versions of a model have one configuration."""
    if not place.exists():
        return
    standing = place.read_text("utf-8")
    for field in ("backend", "input", "output"):
        if (told := text({field: config[field]})) not in standing:
            raise UsageError(
                "the repository has a model of this name that is of another kind",
                where=place,
                got=f"another {field}",
                expected=told.strip(),
                hint=f"another name, --name, or another folder than -o {output}",
            )


def _version(bundle: Bundle, models: dict[str, Path]) -> int:
    """The number of the newest version if it is this bundle, else one that no model has had."""
    folders = (path for model in models.values() for path in model.glob("*") if path.is_dir())
    newest = max((int(path.name) for path in folders if path.name.isdecimal()), default=0)
    standing = models["autoencoder"] / str(newest) / BUNDLE / MANIFEST
    same = standing.is_file() and standing.read_bytes() == (bundle.path / MANIFEST).read_bytes()
    return newest if same else newest + 1


def _copied(bundle: Bundle, version: Path) -> Path:
    """The bundle's files, and no others, in a version's folder."""
    for name in (MANIFEST, *bundle.manifest.files):
        atomic.copy(bundle.path / name, version / BUNDLE / name)
    return version / BUNDLE
