"""Every bundle that a release has ever written can be opened and run by this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiedexport
from tiedexport.manifest import SCHEMA
from tiedexport.verify import verify

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_a_bundle_of_every_schema_opens_runs_and_verifies(schema: int) -> None:
    bundle = tiedexport.open_bundle(DATA / f"schema-{schema}.tied")
    assert bundle.manifest.schema == schema
    with tiedexport.open_session(bundle, runtime="onnxruntime") as session:
        codes = session.encode(np.zeros((3, 6), np.float32))
    assert codes.shape == (3, 2)
    result = verify(bundle)
    assert result.passed, result.comparisons
