"""Who unties what, and what `tiedexport retie` makes of it: today's tools on small tied models.

python bench/who_unties.py
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import strftime

from record import RESULTS, commit

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.untying_cases import AUTOCAST, CASES, PACKAGES, outcome_of
from tiedexport.retie import retie


def main() -> None:
    modelopt = importlib.util.find_spec("modelopt") is not None
    rows = [row(*case) for case in CASES if modelopt or case[0] != AUTOCAST]
    packages = (*PACKAGES, "nvidia-modelopt") if modelopt else PACKAGES
    result = {
        "rows": rows,
        "versions": {package: version(package) for package in packages},
        "commit": commit(),
        "date": strftime("%Y-%m-%d"),
    }
    path = RESULTS / "who-unties.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"→ {path}")


def row(tool: str, form: str) -> dict[str, str]:
    """What a tool leaves of a tie, and what is left after `retie` ("" where nothing was lost)."""
    mended = proof = ""
    with TemporaryDirectory() as folder:
        paths = CASES[tool, form](Path(folder))
        outcome = outcome_of(paths)
        if "copies" in outcome:
            result = retie(paths, Path(folder, "mended"))
            mended = outcome_of([Path(out) for out in result.outputs if out.endswith(".onnx")])
            proof = result.proof
    print(f"{tool:<46} {form:<34} {outcome:<13} {mended:<9} {proof}")
    return {"tool": tool, "form": form, "outcome": outcome, "mended": mended, "proof": proof}


if __name__ == "__main__":
    main()
