"""Live modules: ties by storage and by their uses, mistakes, and code that is not ours."""

from __future__ import annotations

import sys
from pathlib import Path

import five_ways
import mistaken_ties
import pytest
from command_line import tiedexport

from tiedexport.audit import audit
from tiedexport.errors import EXIT_BAD_INPUT, EXIT_CHECK_FAILED, EXIT_DONE, EXIT_USAGE
from tiedexport.results.ties import AuditResult, Stage

MODELS = """
import copy
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 24))

    def forward(self, x):
        return nn.functional.linear(x, self.weight) @ self.weight

def halved():
    return Tied().to(torch.bfloat16)

def buffers():
    module = Tied()
    module.register_buffer("again", module.weight.detach())
    module.register_buffer("empty", torch.empty(0))
    return module

def raising():
    raise KeyError("no such checkpoint")

def leaving():
    raise SystemExit(3)

def nothing():
    return 3

def plain():
    return nn.Sequential(nn.Linear(24, 24), nn.ReLU())

def quantised():
    encoder, decoder = nn.Linear(24, 8), nn.Linear(8, 24)
    decoder.weight = nn.Parameter(encoder.weight.t())
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(encoder, decoder))

def empty():
    return nn.ReLU()

instance = Tied()
number = 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with somebody's modules."""
    (tmp_path / "somebodys_models.py").write_text(MODELS)
    (tmp_path / "broken_models_of_mine.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def parameters(result: AuditResult) -> Stage:
    row = result.stages[0]
    assert row.name == "Python parameters"
    return row


@pytest.mark.parametrize("way", five_ways.FIVE_WAYS)
def test_each_of_the_five_ways_has_one_copy_with_both_uses(way: str) -> None:
    result = audit([f"five_ways:{way}"])
    row = parameters(result)
    assert (row.status, result.failed) == ("one copy", False)
    assert len(row.ties) == len(five_ways.WIDTHS) - 1
    for tie in row.ties:
        assert len(tie.copies) == 1
        assert len(tie.uses) == 2


@pytest.mark.parametrize(
    ("mistake", "copies"), [("ParameterOfTranspose", 1), ("DataAssignment", 1), ("ClonedOnce", 2)]
)
def test_a_mistake_fails_the_audit_whether_or_not_it_has_copied_yet(
    mistake: str, copies: int
) -> None:
    result = audit([f"mistaken_ties:{mistake}"])
    (tie,) = parameters(result).ties
    assert len(tie.copies) == copies
    assert result.failed
    assert any(finding.breaks_now for finding in result.findings)
    assert all(finding.instead for finding in result.findings)


def test_copies_in_memory_have_no_file_and_no_offset() -> None:
    (tie,) = parameters(audit(["mistaken_ties:ClonedOnce"])).ties
    assert [(copy.file, copy.offset) for copy in tie.copies] == [("memory", None)] * 2
    assert [copy.form for copy in tie.copies] == ["original", "transposed"]


@pytest.mark.parametrize("name", ["Tied", "instance", "halved"])
def test_a_class_an_instance_and_a_factory_are_modules(name: str, folder: Path) -> None:
    row = parameters(audit([f"somebodys_models:{name}"], input_shape=[24]))
    assert row.status == "one copy"
    assert row.ties[0].copies[0].dtype == ("bfloat16" if name == "halved" else "float32")


def test_without_an_input_shape_only_names_can_tell(folder: Path) -> None:
    row = parameters(audit(["somebodys_models:Tied"]))
    assert row.status == "no tie"
    assert "--input-shape" in row.reason
    row = parameters(audit(["somebodys_models:buffers"]))
    assert row.status == "one copy"
    assert set(row.ties[0].uses) == {"weight", "again"}
    assert "not read: empty" in row.reason


@pytest.mark.parametrize(("name", "status"), [("plain", "no tie"), ("empty", "not run")])
def test_a_module_without_a_tie_passes(name: str, status: str, folder: Path) -> None:
    result = audit([f"somebodys_models:{name}"], input_shape=[24])
    assert parameters(result).status == status
    assert not result.failed


@pytest.mark.filterwarnings("ignore")  # torch's own, about its quantisation
def test_a_quantised_module_is_told_by_its_findings(folder: Path) -> None:
    result = audit(["somebodys_models:quantised"], input_shape=[24])
    assert result.failed


@pytest.mark.parametrize(
    ("thing", "code", "words"),
    [
        ("somebodys_models:raising", EXIT_BAD_INPUT, "KeyError('no such checkpoint')"),
        ("somebodys_models:leaving", EXIT_BAD_INPUT, "SystemExit(3)"),
        ("somebodys_models:nothing", EXIT_BAD_INPUT, "the factory made no module"),
        ("somebodys_models:number", EXIT_BAD_INPUT, "not a module"),
        ("somebodys_models:absent", EXIT_USAGE, "raising"),
        ("nobodys_models:make", EXIT_USAGE, "no such Python module"),
        ("broken_models_of_mine:make", EXIT_BAD_INPUT, "nowhere_to_be_found"),
    ],
)
def test_what_is_no_module_is_an_error_that_says_so(
    thing: str, code: int, words: str, folder: Path
) -> None:
    done = tiedexport("audit", thing, cwd=folder)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_line_of_somebody_elses_code_is_named(folder: Path) -> None:
    line = MODELS.splitlines().index('    raise KeyError("no such checkpoint")') + 1
    done = tiedexport("audit", "somebodys_models:raising", cwd=folder)
    assert f"somebodys_models.py:{line}" in done.stderr


@pytest.mark.parametrize(
    ("mistake", "code"), [("ParameterOfTranspose", EXIT_CHECK_FAILED), ("TwoLinears", EXIT_DONE)]
)
def test_the_command_fails_on_mistakes_where_asked_to(mistake: str, code: int) -> None:
    here = Path(mistaken_ties.__file__).parent
    thing = f"mistaken_ties:{mistake}"
    assert tiedexport("audit", thing, "--fail-on-copies", cwd=here).returncode == code
    assert tiedexport("audit", thing, cwd=here).returncode == EXIT_DONE
