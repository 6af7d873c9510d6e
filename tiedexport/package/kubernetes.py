"""`--format kubernetes`: all that a cluster needs to serve a bundle, in one folder.

`models` is a Triton repository as `--format triton` writes it, `Dockerfile` makes the server's
image, and `kubernetes` holds a Deployment, a Service and an autoscaler, or an InferenceService of
KServe. What is to be otherwise is laid over it, with Kustomize for example: writing again replaces
these files.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tiedexport
from tiedexport import atomic
from tiedexport.bundle import MANIFEST, file_sha256
from tiedexport.data.extras import needed_for
from tiedexport.errors import UsageError
from tiedexport.package import Packaged, kubernetes_image, kubernetes_objects, triton
from tiedexport.package.kubernetes_budget import budget

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.package.kubernetes_objects import Deployed, Object

_FOLDER = "kubernetes"
_LONGEST_NAME = 63 - len("-models")
_IMAGE = re.compile(r"[a-z0-9][\w.:/@-]*", re.ASCII)


@dataclass(frozen=True)
class Options(triton.Options):
    """How the models are served, and where.

    Attributes:
        image: of the server, as the cluster pulls it.
        models_image: of the models, mounted as an image volume (Kubernetes 1.31 and later); by
            default a claim holds them, into which `models` is copied.
        kserve: an InferenceService in place of Deployment, Service and autoscaler.
        min_replicas, max_replicas: pods.
    """

    image: str = f"tiedexport-server:{tiedexport.__version__}"
    models_image: str = ""
    kserve: bool = False
    min_replicas: int = 1
    max_replicas: int = 4


def write(bundle: Bundle, output: Path, options: Options) -> Packaged:
    """Write models, Dockerfile and objects; models as `triton.write` does, a version at a time.

    Raises:
        BundleError: the bundle has not what the backend needs.
        MissingRuntimeError: PyYAML is not installed.
        UsageError: an option is out of range, or what stands in `output` does not fit.
    """
    _refuse_mistakes(options)
    with needed_for("writing YAML", "PyYAML", extra="serve"):
        import yaml
    name = label(options.name or bundle.manifest.name)
    models = triton.write(bundle, output / "models", options)
    of = kubernetes_objects.Deployed(
        name=name,
        model=models.models[-1],  # the server answers when all are loaded; any of them would do
        version=models.version,
        digest=file_sha256(bundle.path / MANIFEST),
        image=options.image,
        models_image=options.models_image,
        replicas=(options.min_replicas, options.max_replicas),
        budget=budget(bundle, options),
    )
    folder = output / _FOLDER
    for file, one in _objects(of, options.kserve).items():
        if one is None:
            (folder / f"{file}.yaml").unlink(missing_ok=True)
            continue
        told = yaml.safe_dump(one, sort_keys=False, width=100)
        atomic.write(folder / f"{file}.yaml", (_comment(file, of) + told).encode())
    _write_image(output, of, options)
    return Packaged(
        output, models.models, models.version, shlex.join(["kubectl", "apply", "-f", str(folder)])
    )


def label(name: str) -> str:
    """A bundle's name as a DNS label (RFC 1035), as objects are named.

    Raises:
        UsageError: nothing of it would be left.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")
    plain = plain[:_LONGEST_NAME].rstrip("-")
    if not plain:
        raise UsageError("no name for an object", got=repr(name), hint="give one: --name digits")
    return plain


def _objects(of: Deployed, kserve: bool) -> dict[str, Object | None]:
    """Name of a file → what it holds; None where there is to be no such file."""
    return {
        "claim": None if of.models_image else kubernetes_objects.claim(of),
        "inference-service": kubernetes_objects.inference_service(of) if kserve else None,
        "deployment": None if kserve else kubernetes_objects.deployment(of),
        "service": None if kserve else kubernetes_objects.service(of),
        "autoscaler": None if kserve else kubernetes_objects.autoscaler(of),
    }


def _comment(name: str, of: Deployed) -> str:
    lines = [f"Written by tiedexport {tiedexport.__version__}; writing again replaces it."]
    if name in ("deployment", "inference-service"):
        lines += ["Memory, requested and limited:", *(f"  {line}" for line in of.budget.lines)]
    return "".join(f"# {line}\n" for line in lines)


def _write_image(output: Path, of: Deployed, options: Options) -> None:
    runtimes = "gpu" if of.budget.gpus else "cpu"
    text = kubernetes_image.dockerfile(
        version=tiedexport.__version__,
        image=of.image,
        models_image=of.models_image or f"{of.name}-models:{of.version}",
        extra=runtimes if options.backend == "python" else "",
        threads=options.threads,
        user=kubernetes_objects.USER,
        command=f"CMD {json.dumps(list(kubernetes_objects.SERVER))}",
    )
    atomic.write(output / "Dockerfile", text.encode())
    atomic.write(output / ".dockerignore", kubernetes_image.IGNORED.encode())
    atomic.write(output / "wheels/README", kubernetes_image.WHEELS.encode())


def _refuse_mistakes(options: Options) -> None:
    for image in filter(None, (options.image, options.models_image)):
        if not _IMAGE.fullmatch(image):
            raise UsageError(
                "not the name of an image", got=repr(image), expected="REGISTRY/NAME:TAG"
            )
    if not 1 <= options.min_replicas <= options.max_replicas:
        raise UsageError(
            "not a range of pods",
            got=f"{options.min_replicas} to {options.max_replicas}",
            expected="at least 1, and the most not less than the least",
        )
