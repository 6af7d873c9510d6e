"""Results as pages that one looks at before one reads: HTML, Markdown, pictures, terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport import atomic
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.report.charts import require_altair
from tiedexport.report.images import as_images
from tiedexport.report.pictures import reconstruction_grid, training_curves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.report.page import Page
    from tiedexport.results import BenchResult, TrainResult, VerifyResult
    from tiedexport.results.observation import Observation
    from tiedexport.results.server import ServerResult
    from tiedexport.results.suite import SuiteResult
    from tiedexport.results.ties import AuditResult

__all__ = ["as_images", "audit_report", "reconstruction_grid", "report", "training_curves"]


def report(
    bundle: Bundle | str | Path,
    *,
    verify: VerifyResult | None = None,
    bench: BenchResult | None = None,
    train: TrainResult | None = None,
    audit: AuditResult | None = None,
    servers: Sequence[ServerResult] = (),
    suite: SuiteResult | None = None,
    observation: Observation | str | None = None,
    advice: str = "",
    output: Path,
) -> Path:
    """Write a self-contained HTML report, and its Markdown twin with PNGs beside it.

    Args:
        bundle: an open bundle or its path.
        verify: agreement to show; without it, its section is left out.
        bench: latency to show; without it, its section is left out.
        train: by default what the bundle itself records of its training.
        audit: copies of each tied weight at every stage; without it, the tie is judged by the
            bytes of the bundle's files alone.
        servers: under load, to show, each in a section of its own: HTTP and gRPC, for example.
        suite: the standing models on a machine, to show; without it, its section is left out.
        observation: of `tiedexport.observation.observe`, or why there is none.
        advice: what to deploy, in a sentence, as `tiedexport.advice.advise` says.
        output: the HTML file; the twin has the suffix `.md`, its pictures `<stem>-pictures/`.

    Returns:
        The path of the HTML file.

    Raises:
        MissingRuntimeError: what draws is not installed.
        BundleError: the bundle is damaged.
    """
    require_altair()
    from tiedexport.report import content

    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    training = train.record if train is not None else opened.manifest.training
    seen = content.NOT_OBSERVED if observation is None else observation
    found = content.Found(verify, bench, training, audit, seen, advice, tuple(servers), suite)
    return _write(content.page(opened, found), Path(output))


def audit_report(result: AuditResult, output: Path) -> Path:
    """Write what an audit found as a self-contained HTML page and its Markdown twin.

    Args:
        result: of `audit`, for any thing that it takes.
        output: the HTML file; the twin has the suffix `.md`, its pictures `<stem>-pictures/`.

    Returns:
        The path of the HTML file.

    Raises:
        MissingRuntimeError: what draws is not installed.
    """
    require_altair()
    from tiedexport.report import ties_section

    return _write(ties_section.page(result), Path(output))


def _write(page: Page, output: Path) -> Path:
    from tiedexport.report import html, markdown

    atomic.write(output, html.document(page).encode())
    markdown.write(page, output.with_suffix(".md"))
    return output
