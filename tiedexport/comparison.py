"""One output against its golden values: how far off, where, and whether within its bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiedexport.results import Comparison

if TYPE_CHECKING:
    from tiedexport import rounding
    from tiedexport.spec import Precision


def compare(
    output: np.ndarray,
    golden: np.ndarray,
    bounded: rounding.Bounded,
    runtime: str,
    stage: str,
    precision: Precision,
    accumulation: Precision,
) -> Comparison:
    """Judge one output [n, ...] against golden values and bounds of the same shape, in float64."""
    if output.shape != golden.shape:
        reason = f"output of shape {list(output.shape)}, expected {list(golden.shape)}"
        return Comparison(runtime, stage, precision, "failed", reason, accumulation=accumulation)
    wide = output.astype(np.float64)
    nan_count, inf_count = int(np.isnan(wide).sum()), int(np.isinf(wide).sum())
    if nan_count or inf_count:
        return Comparison(
            runtime,
            stage,
            precision,
            "failed",
            reason=bounded.overflow or "outputs that are not finite",
            nan_count=nan_count,
            inf_count=inf_count,
            accumulation=accumulation,
        )
    error = np.abs(wide - golden)
    ratio = error / bounded.bound
    worst = np.unravel_index(int(ratio.argmax()), ratio.shape)
    passed = bool((ratio <= 1.0).all())
    nonzero = np.abs(golden) > 0
    return Comparison(
        runtime=runtime,
        stage=stage,
        precision=precision,
        status="passed" if passed else "failed",
        reason="" if passed else f"{int((ratio > 1).sum())} outputs beyond their bound",
        absolute_error=float(error.max()),
        relative_error=float((error[nonzero] / np.abs(golden[nonzero])).max(initial=0.0)),
        worst_index=tuple(int(i) for i in worst),
        error_in_bounds=float(ratio[worst]),
        bound=float(bounded.bound[worst]),
        accumulation=accumulation,
        cosine=_cosine(wide, golden),
        psnr_db=_psnr_db(error, golden),
    )


def _cosine(output: np.ndarray, golden: np.ndarray) -> float:
    norms = float(np.linalg.norm(output) * np.linalg.norm(golden))
    return float(np.vdot(output, golden)) / norms if norms > 0 else 1.0


def _psnr_db(error: np.ndarray, golden: np.ndarray) -> float | None:
    """20 log10(peak / RMS error), the peak being the golden output's range; None where it is 0."""
    rms, peak = float(np.sqrt(np.mean(error**2))), float(np.ptp(golden))
    return 20.0 * float(np.log10(peak / rms)) if rms > 0 and peak > 0 else None
