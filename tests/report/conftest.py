"""Drawing takes a tenth of a second a chart: what several tests draw is drawn once."""

from __future__ import annotations

import json
from functools import cache

import pytest
import vl_convert

from tiedexport.report import charts


@cache
def _drawn(method: str, spec: str, options: str) -> str | bytes:
    return getattr(vl_convert, method)(json.loads(spec), **json.loads(options))


class _Converter:
    """vl-convert, which remembers what it drew."""

    def __getattr__(self, method: str):
        if not method.startswith("vegalite_to"):
            return getattr(vl_convert, method)
        return lambda spec, **options: _drawn(method, json.dumps(spec), json.dumps(options))


@pytest.fixture(autouse=True, scope="session")
def remembered_charts():
    patch = pytest.MonkeyPatch()
    patch.setattr(charts, "_converter", _Converter)
    yield
    patch.undo()
