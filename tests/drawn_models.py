"""Models at random: stacks of every width, activation and end."""

from __future__ import annotations

from hypothesis import strategies as st

from tiedexport.spec import ACTIVATIONS

STACKS = st.fixed_dictionaries(
    {
        "widths": st.lists(st.integers(1, 40), min_size=2, max_size=4),
        "activation": st.sampled_from(ACTIVATIONS),
        "code": st.sampled_from(["activated", "linear"]),
        "output": st.sampled_from(["sigmoid", "linear"]),
    }
)
"""Fields of the family `autoencoder`."""
