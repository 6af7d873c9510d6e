"""Outputs added to the bytes of a model are outputs of the model, and nothing else changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from hypothesis import given
from hypothesis import strategies as st

from tiedexport.protobuf import with_outputs
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(names=st.lists(NAMES, max_size=40))
def test_a_model_has_the_outputs_that_were_added(dense_bundle: Bundle, names: list[str]) -> None:
    raw = dense_bundle.graph("decoder", Precision.FP16).read_bytes()
    plain, added = onnx.load_from_string(raw), onnx.load_from_string(with_outputs(raw, names))
    assert [value.name for value in added.graph.output] == [
        *(value.name for value in plain.graph.output),
        *names,
    ]
    del added.graph.output[len(plain.graph.output) :]
    assert added == plain
