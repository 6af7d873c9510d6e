"""What a trained model is measured against: PCA of the same code size, and the untied twin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from tiedexport.families import family_named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiedexport.recipe import Recipe

EXACT_PCA_FEATURES = 2048
"""Up to this many features PCA is exact, by its covariance; above, randomised from a fixed seed."""


def pca_rmse(train: NDArray[np.float32], test: NDArray[np.float32], code_size: int) -> float:
    """RMSE on `test` of PCA fitted on `train`, the best linear autoencoder; nothing is clipped.

    Args:
        train: [n, ...].
        test: [m, ...], samples of the same shape.
        code_size: how many components; fewer where samples or features do not allow as many.
    """
    from sklearn.decomposition import PCA

    fitted_on, applied_to = train.reshape(len(train), -1), test.reshape(len(test), -1)
    exact = fitted_on.shape[1] <= EXACT_PCA_FEATURES
    pca = PCA(
        min(code_size, *fitted_on.shape),
        svd_solver="covariance_eigh" if exact else "randomized",
        random_state=0,
    ).fit(fitted_on)
    errors = pca.inverse_transform(pca.transform(applied_to)) - applied_to
    return math.sqrt(np.square(errors, dtype=np.float64).mean())


def parameter_counts(recipe: Recipe) -> tuple[int, int]:
    """How many parameters the recipe's model has, and how many its untied twin."""
    family = family_named(recipe.family)
    twin = msgspec.structs.replace(recipe.config, tied=False)
    with torch.device("meta"):
        modules = [family.module(config) for config in (recipe.config, twin)]
    counts = [sum(p.numel() for p in module.parameters()) for module in modules]
    return counts[0], counts[1]
