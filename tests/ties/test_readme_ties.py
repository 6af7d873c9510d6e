"""The README's section on ways to tie runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tiedexport.results.ties import Finding, TieProof

README = Path(__file__).parents[2] / "README.md"


def test_the_five_ways_of_the_readme_are_proven() -> None:
    section = re.search(r"<!-- ties:begin -->(.*?)<!-- ties:end -->", README.read_text(), re.DOTALL)
    if section is None:
        pytest.skip("the README has no section on ways to tie")
    names: dict[str, Any] = {"__name__": "readme"}
    for code in re.findall(r"```python\n(.*?)```", section[1], re.DOTALL):
        exec(code, names)
    assert len(names["modules"]) == 5
    assert isinstance(names["proof"], TieProof)
    assert names["proof"].holds
    assert names["warnings"]
    assert all(isinstance(one, Finding) and not one.breaks_now for one in names["warnings"])
