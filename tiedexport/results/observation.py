"""What a model does with samples: its codes, the way between two of them, and where it errs."""

from __future__ import annotations

from msgspec import Struct

from tiedexport.results import RESULT_SCHEMA, Environment, Reconstruction
from tiedexport.spec import Precision


class Projection(Struct, frozen=True):
    """Codes on the two axes along which they vary most (principal component analysis).

    Attributes:
        points: (first, second) coordinate of each sample.
        labels: of each sample; empty where there are none.
        explained: the share of the codes' variance along each axis.
    """

    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]
    explained: tuple[float, float]


class Observation(Struct, frozen=True):
    """What one runtime made of samples that the model was not trained on, if there are such.

    Attributes:
        samples: where they came from.
        errors: RMSE of each sample, in the order of the samples.
        projection: of the first samples; None of fewer than three.
        interpolation: decoded codes on the line between those of the first sample and of the first
            one with another label.
        worst: the samples with the largest errors, and `worst_reconstructions` of them.
    """

    runtime: str
    precision: Precision
    samples: str
    errors: tuple[float, ...]
    projection: Projection | None
    interpolation: Reconstruction
    worst: Reconstruction
    worst_reconstructions: Reconstruction
    environment: Environment
    schema: int = RESULT_SCHEMA

    @property
    def worst_errors(self) -> tuple[float, ...]:
        """RMSE of the worst samples, the largest first."""
        return tuple(sorted(self.errors, reverse=True)[: self.worst.shape[0]])
