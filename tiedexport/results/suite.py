"""What `bench --suite` keeps: the same models, measured on machine after machine."""

from __future__ import annotations

from msgspec import Struct

from tiedexport.results import RESULT_SCHEMA, BenchResult, Environment


class SuiteModel(Struct, frozen=True):
    """One model of the suite and its latencies.

    Attributes:
        name: "digits", "hinton2006", or "layer-16" for one layer of 16 MiB in fp32.
        widths: from the input to the code.
        weight_bytes: of all tied weights in fp32, each once.
        bench: as `bench` tells it; its bundle is a name, since the suite makes its own.
    """

    name: str
    widths: tuple[int, ...]
    weight_bytes: int
    bench: BenchResult


class SuiteResult(Struct, frozen=True):
    """Every model of the suite on one machine.

    Attributes:
        weights: how the weights came to be.
        date: of the measurement, ISO 8601.
        commit: of the checkout that was measured, "-dirty" where files differed; "" of an installed
            package, whose version is in the environment.
    """

    models: tuple[SuiteModel, ...]
    weights: str
    date: str
    commit: str
    environment: Environment
    seconds: float
    schema: int = RESULT_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether a contender failed at any model."""
        return any(model.bench.failed for model in self.models)

    @property
    def passed(self) -> bool:
        """Whether every model was measured and nothing failed."""
        return bool(self.models) and all(model.bench.passed for model in self.models)
