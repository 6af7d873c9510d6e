"""Objects of Kubernetes and KServe against the schemas that those projects publish.

Kubernetes' come with `kubernetes-validate`, a version of the cluster each. KServe's are the models
that its wheel has, generated from its OpenAPI document: they are read and not imported, as the
package asks for far more than they do.
"""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

_KSERVE = Path(sys.prefix, "kserve/kserve/models")

needs_kserve = pytest.mark.skipif(
    not _KSERVE.is_dir(), reason="`make test` found no wheel of kserve for this Python"
)

_SCALARS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
}


def check_kubernetes(found: dict[str, Any], version: str) -> None:
    """Refuse what the API of that version does not have, unknown fields too."""
    kubernetes_validate.validate(found, version, strict=True)


def check_kserve(found: dict[str, Any], kind: str, version: str) -> None:
    """Refuse what KServe's model of that name does not have; a pod's fields are Kubernetes' own."""
    types, names = _model(kind)
    of_pod = {}
    for field, value in found.items():
        assert field in names, f"{kind} has no {field}"
        declared = types[names[field]]
        if declared.startswith("V1beta1"):
            check_kserve(value, declared, version)
        elif declared in _SCALARS:
            assert type(value) is not bool or declared == "bool", f"{kind}.{field}: {value!r}"
            assert isinstance(value, _SCALARS[declared]), f"{kind}.{field}: {value!r}"
        elif declared == "dict(str, str)":
            assert all(type(text) is str for pair in value.items() for text in pair), field
        else:
            of_pod[field] = value
    if metadata := of_pod.pop("metadata", None):
        check_kubernetes({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, version)
    if of_pod:
        check_kubernetes({"apiVersion": "v1", "kind": "Pod", "spec": of_pod}, version)


@cache
def _model(kind: str) -> tuple[dict[str, str], dict[str, str]]:
    """Of a model: attribute → type, and the name of each field → attribute."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
    tree = ast.parse((_KSERVE / f"{words}.py").read_text("utf-8"))
    (model,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in model.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Dict)
    }
    attributes = tables["attribute_map"]
    return tables["openapi_types"], {name: attribute for attribute, name in attributes.items()}
