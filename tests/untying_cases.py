"""Who unties what: every tool on every form that it is tried on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.untying_exporters import EXPORTS, language_model
from tests.untying_tools import (
    DEDUPLICATORS,
    FOLDED_CASTS,
    TIED,
    TOOLS,
    UNTIED,
    applied,
    autocast,
    copies_of,
    runs,
    write_graph,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

AS_IT_IS = "as it is"
MIXED_THEN_FOLDED = "onnxconverter-common mixed, onnxruntime BASIC"
AUTOCAST = "modelopt autocast"
GPT2 = "GPT-2, exported by dynamo"

_EVERY = {**TOOLS, **DEDUPLICATORS, MIXED_THEN_FOLDED: FOLDED_CASTS, AUTOCAST: autocast}


def _on_graph(tool: str, form: str, folder: Path) -> list[Path]:
    path = write_graph(form, folder)
    return [path if tool == AS_IT_IS else applied(_EVERY[tool], path)]


def _on_gpt2(tool: str, folder: Path) -> list[Path]:
    return [applied(_EVERY[tool], *language_model(folder))]


_ON_GRAPHS = [
    *((tool, form) for tool in TOOLS for form in TIED),
    *((tool, form) for tool in (AS_IT_IS, *DEDUPLICATORS) for form in UNTIED),
    (MIXED_THEN_FOLDED, "Gemm, Transpose, Gemm"),
    (MIXED_THEN_FOLDED, "Gather, Transpose, MatMul"),
    *((AUTOCAST, form) for form in TIED),
]

CASES: dict[tuple[str, str], Callable[[Path], list[Path]]] = {
    **EXPORTS,
    **{case: partial(_on_graph, *case) for case in _ON_GRAPHS},
    **{(tool, GPT2): partial(_on_gpt2, tool) for tool in (*TOOLS, MIXED_THEN_FOLDED)},
}
"""(Tool, form) → writes into a folder what the tool makes of it, in one file or several."""


def outcome_of(paths: Sequence[Path]) -> str:
    """What became of a tie: "one copy", "2 copies", or "does not run"."""
    if not all(map(runs, paths)):
        return "does not run"
    copies = copies_of(paths)
    return "one copy" if copies == 1 else f"{copies} copies"


PACKAGES = (
    "torch",
    "onnxscript",
    "onnx-ir",
    "transformers",
    "onnxslim",
    "onnxsim",
    "polygraphy",
    "onnx-graphsurgeon",
    "onnxruntime",
    "onnxconverter-common",
)
"""What the tools are part of."""
