"""What the model makes of samples: reconstructions, codes, errors, and the worst of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiedexport.report import images, model_charts
from tiedexport.report.page import Chart, Section, Stack, Strip
from tiedexport.report.tables import contender

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.report.page import Block
    from tiedexport.results import VerifyResult
    from tiedexport.results.observation import Observation

_BUNDLE_SAMPLES = 8


def pictures(bundle: Bundle, verify: VerifyResult | None) -> Section:
    """Originals, then each distinct reconstruction and its difference from the original."""
    originals, rows = _compared(bundle, verify)
    stacks = [Stack((_strip("originals", "Originals", originals),))]
    for index, (label, shown) in enumerate(_merge_equal(rows).items()):
        difference = shown - originals
        amplified = _amplification(difference)
        made = _strip(f"reconstructions-{index}", label, shown)
        words = f"Difference from the originals, amplified {amplified} ×: blue too dark, "
        words += "orange too bright"
        png = images.difference_strip(difference, amplified)
        alt = f"{words}; {label}, {len(shown)} images"
        stacks.append(Stack((made, Strip(f"differences-{index}", words, alt, png))))
    text = "Samples that the bundle carries. Runtimes whose images agree to 1/255 share a row."
    if verify is None:
        text += " Of each runtime: not run; tiedexport verify does it."
    return Section("Originals and reconstructions", text, tuple(stacks))


def first_pictures(bundle: Bundle) -> tuple[Strip, Strip]:
    """A row of originals and one of what the model makes of them, for the first screen."""
    originals, rows = _compared(bundle, None)
    (exact,) = rows.values()
    return (
        _strip("what-goes-in", "What goes in", originals[:5]),
        _strip("what-comes-out", "What comes out", exact[:5]),
    )


def _compared(
    bundle: Bundle, verify: VerifyResult | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Golden inputs as images, and what the reference and each runtime made of them."""
    manifest = bundle.manifest
    stage = manifest.stage("autoencoder")
    records = verify.reconstructions if verify is not None else ()
    count = min((record.shape[0] for record in records), default=_BUNDLE_SAMPLES)
    originals = images.as_images(bundle.golden[stage.inputs[0].name][:count], manifest.sample_shape)
    exact = images.as_images(bundle.golden[stage.outputs[0].name][:count], manifest.sample_shape)
    rows = {"float64 reference": exact}
    return originals, rows | {contender(r): images.from_record(r) for r in records}


def _amplification(difference: np.ndarray) -> int:
    """The largest of 1, 2, 5, 10 … that leaves all differences within 1; 1 where there are none."""
    largest = float(np.abs(difference).max()) or 1.0
    steps = [step * 10**power for power in range(4) for step in (1, 2, 5)]
    return max((step for step in steps if step * largest <= 1), default=1)


def _merge_equal(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows that nobody could tell apart under one label; the first of them stands for all."""
    groups: list[tuple[list[str], np.ndarray]] = []
    for label, shown in rows.items():
        for labels, first in groups:
            # 1.5 levels: two images one level apart, whichever way the reference was rounded.
            if first.shape == shown.shape and np.abs(first - shown).max() < 1.5 / 255:
                labels.append(label)
                break
        else:
            groups.append(([label], shown))
    return {", ".join(labels): shown for labels, shown in groups}


def _strip(name: str, label: str, shown: np.ndarray) -> Strip:
    return Strip(name, label, f"{label}: {len(shown)} images", images.strip(shown))


def latent(found: Observation | str) -> Section:
    """The codes in two dimensions, and what lies between two of them."""
    if isinstance(found, str):
        return Section("The codes", f"Not run: {found}.", ())
    text = f"Of {found.samples}, in {found.runtime} {found.precision}."
    blocks: list[Block] = []
    if found.projection is not None:
        shown = found.projection
        drawn = model_charts.latent_chart(shown.points, shown.labels, shown.explained)
        blocks.append(Chart("latent", drawn))
    else:
        text += " They are too few to be projected."
    between = images.from_record(found.interpolation)
    label = "From one code to another in a straight line, decoded"
    blocks.append(_strip("interpolation", label, between))
    return Section("The codes", text, tuple(blocks))


def errors(found: Observation | str) -> Section:
    """How errors are spread over the samples, and the samples that have the largest."""
    title = "Errors, and the worst samples"
    if isinstance(found, str):
        return Section(title, f"Not run: {found}.", ())
    who = f"{found.runtime} {found.precision}"
    worst = images.from_record(found.worst)
    made = images.from_record(found.worst_reconstructions)
    figures = ", ".join(f"{error:.3f}" for error in found.worst_errors)
    amplified = _amplification(made - worst)
    words = f"Their difference, amplified {amplified} ×: blue too dark, orange too bright"
    differences = images.difference_strip(made - worst, amplified)
    blocks = (
        Chart("error-histogram", model_charts.error_chart(found.errors, who)),
        Stack(
            (
                _strip("worst", f"The worst samples, by RMSE: {figures}", worst),
                _strip("worst-reconstructions", f"What {who} makes of them", made),
                Strip("worst-differences", words, f"{words}: {len(made)} images", differences),
            )
        ),
    )
    return Section(title, f"Of {found.samples}.", blocks)
