"""What `demo` reports: it stands above the results of every other verb."""

from __future__ import annotations

from msgspec import Struct

from tiedexport.results import (
    RESULT_SCHEMA,
    BenchResult,
    BuildResult,
    TrainResult,
    VerifyResult,
)
from tiedexport.results.ties import AuditResult


class DemoResult(Struct, frozen=True):
    """The whole path: every result of `demo` and the report that shows them."""

    train: TrainResult
    build: BuildResult
    audit: AuditResult
    verify: VerifyResult
    bench: BenchResult
    report: str
    seconds: float
    schema: int = RESULT_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether a check failed."""
        return self.audit.failed or self.verify.failed or self.bench.failed

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return self.audit.passed and self.verify.passed and self.bench.passed
