"""Drawing takes a tenth of a second a chart: what several tests draw is drawn once."""

from __future__ import annotations

import json
from functools import cache
from typing import Any


@cache
def _drawn(method: str, spec: str, options: str) -> str | bytes:
    import vl_convert

    return getattr(vl_convert, method)(json.loads(spec), **json.loads(options))


class Converter:
    """vl-convert, which remembers what it drew."""

    def __getattr__(self, method: str) -> Any:
        import vl_convert

        if not method.startswith("vegalite_to"):
            return getattr(vl_convert, method)
        return lambda spec, **options: _drawn(method, json.dumps(spec), json.dumps(options))
