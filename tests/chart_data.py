"""The data of a Vega-Lite specification as altair writes it: datasets by name, used by layers."""

from __future__ import annotations

from typing import Any


def values(spec: dict[str, Any], layer: int | None = None) -> list[dict[str, Any]]:
    """The rows of the whole chart, or of one layer of it."""
    own = {} if layer is None else spec["layer"][layer]
    data = own.get("data", spec.get("data"))
    return data["values"] if "values" in data else spec["datasets"][data["name"]]
