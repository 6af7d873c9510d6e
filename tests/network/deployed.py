"""Bundles whose manifests speak of plans, with the graphs that real plans are parsed from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, get_args

from msgspec.structs import replace

from tiedexport.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from tiedexport.engine_build import graphs
from tiedexport.engine_words import Weights
from tiedexport.manifest import PlanRecord

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.spec import Precision

MODES: tuple[Weights, ...] = get_args(Weights)


def deployed(bundle: Bundle, folder: Path, weights: Weights) -> Bundle:
    """A copy of a bundle with a plan of every stage and precision; the plans themselves are not."""
    path = shutil.copytree(bundle.path, folder / f"{bundle.manifest.name}-{weights}.tied")
    draft, plans = Bundle(path, bundle.manifest), []
    for precision in bundle.manifest.precisions:
        for stage in graphs.stages(bundle.manifest, weights):
            graph = graphs.graph(draft, stage.name, precision, weights)
            plans.append(_record(path, stage.name, precision, weights, graph))
    (path / MANIFEST).unlink()
    write_manifest(path, lambda files: replace(bundle.manifest, plans=tuple(plans), files=files))
    return open_bundle(path)


def _record(
    path: Path, stage: str, precision: Precision, weights: Weights, graph: str
) -> PlanRecord:
    file = path / f"plans/rtx-sm89/{stage}.{precision}.plan"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"no runtime of this suite opens it")
    return PlanRecord(
        file=file.relative_to(path).as_posix(),
        stage=stage,
        precision=precision,
        target="rtx:sm89",
        package="tensorrt_rtx",
        package_version="1.7",
        compute_capabilities=(89,),
        weights=weights,
        bindings=(),
        graph_sha256="",
        graph=graph,
    )
