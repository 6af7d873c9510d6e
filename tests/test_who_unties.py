"""Who unties what, with the versions of today: a tool that behaves otherwise is noticed here."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch

from tests.untying_cases import (
    AS_IT_IS,
    AUTOCAST,
    CASES,
    GPT2,
    MIXED_THEN_FOLDED,
    PACKAGES,
    outcome_of,
)
from tests.untying_tools import TIED
from tiedexport.retie import retie

torch.set_num_threads(1)

GEMMS, MATMULS, FLAGS, LANGUAGE, CONVS = TIED
BLOCKED = ("onnxruntime ALL", CONVS)
"""ONNX Runtime lays out a kernel for processors that have a blocked convolution."""

UNTIE = {
    ("torch.onnx dynamo", "autoencoder of 2,544 elements"),
    ("torch.onnx dynamo", "encoder and decoder"),
    ("torch.onnx dynamo", "Conv encoder and ConvTranspose decoder"),
    ("torch.onnx dynamo, optimize=False", "encoder and decoder"),
    ("torch.onnx TorchScript", "autoencoder without biases"),
    ("torch.onnx TorchScript", "encoder and decoder"),
    ("torch.onnx TorchScript", "Conv encoder and ConvTranspose decoder"),
    ("torch.onnx TorchScript", "GPT-2"),
    ("torch.onnx TorchScript", "T5"),
    ("onnxslim", GEMMS),
    ("onnxslim", MATMULS),
    ("onnxsim", MATMULS),
    ("onnxsim", LANGUAGE),
    ("onnxsim", GPT2),
    *(("polygraphy --fold-constants", form) for form in (GEMMS, MATMULS, LANGUAGE, GPT2)),
    *(
        (f"onnxruntime {level}", form)
        for level in ("BASIC", "EXTENDED", "ALL")
        for form in (MATMULS, LANGUAGE, GPT2)
    ),
    *((MIXED_THEN_FOLDED, form) for form in (GEMMS, LANGUAGE, GPT2)),
    *((AS_IT_IS, form) for tool, form in CASES if tool == AS_IT_IS),
    ("onnx_ir deduplication", "Gemm, Gemm, stored twice"),
    ("onnx_ir deduplication", "Gather, MatMul, transpose stored"),
    ("onnx_ir deduplication by hash", "Gather, MatMul, transpose stored"),
    *((AUTOCAST, form) for form in TIED),
    BLOCKED,
}
"""They leave two copies."""

NO_MODELOPT = (
    "nvidia-modelopt[onnx] replaces onnx and onnxruntime by older ones; without them: pip install "
    "--no-deps nvidia-modelopt lief omegaconf nvidia-ml-py ninja pulp"
)

BREAK = {("onnxconverter-common mixed", form) for form in (MATMULS, FLAGS, CONVS)}
"""They hand one weight to nodes of two types, and nothing runs the graph any more."""


def versions() -> str:
    return ", ".join(f"{package} {version(package)}" for package in PACKAGES)


def expected(case: tuple[str, str]) -> str:
    if case in BREAK:
        return "does not run"
    return "2 copies" if case in UNTIE else "one copy"


@pytest.mark.parametrize("case", CASES, ids=": ".join)
def test_a_tool_keeps_or_loses_a_tie_as_it_did_and_retie_mends_it(
    case: tuple[str, str], tmp_path: Path
):
    if case[0] == AUTOCAST:
        pytest.importorskip("modelopt", reason=NO_MODELOPT)
    paths = CASES[case](tmp_path)
    if case == BLOCKED and not has_blocked_layout(*paths):
        pytest.skip("this processor has no blocked convolution in ONNX Runtime")
    assert outcome_of(paths) == expected(case), versions()
    if case in UNTIE and case != BLOCKED:
        result = retie(paths, tmp_path / "mended")
        mended = [Path(path) for path in result.outputs if path.endswith(".onnx")]
        assert len(mended) == len(paths)
        assert outcome_of(mended) == "one copy"
        assert result.proof == "bit for bit", result.proof_detail
        assert result.bytes_after < result.bytes_before


def has_blocked_layout(path: Path) -> bool:
    return any(node.domain == "com.microsoft.nchwc" for node in onnx.load(path).graph.node)


def test_a_blocked_layout_is_left_and_said(tmp_path: Path):
    paths = CASES[BLOCKED](tmp_path)
    if not has_blocked_layout(*paths):
        pytest.skip("this processor has no blocked convolution in ONNX Runtime")
    result = retie(paths, tmp_path / "mended")
    assert not result.mends
    assert [left.form.startswith("permuted") for left in result.left] == [True]


def test_expectations_are_of_cases():
    assert CASES.keys() >= UNTIE | BREAK
