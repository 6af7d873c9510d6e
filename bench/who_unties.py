"""Who unties what, and what `tiedexport retie` makes of it: today's tools on small tied models.

python bench/who_unties.py

ModelOpt wants other versions of onnx and onnxruntime; where it is not installed, its rows stay as
they were recorded, and its version with them.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import strftime

from record import RESULTS, commit

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.untying_cases import AUTOCAST, CASES, PACKAGES, outcome_of
from tiedexport.retie import retie

MODELOPT = "nvidia-modelopt"


def main() -> None:
    path = RESULTS / "who-unties.json"
    before = json.loads(path.read_text())
    versions = {package: version(package) for package in PACKAGES}
    kept = {}
    try:
        versions[MODELOPT] = version(MODELOPT)
    except PackageNotFoundError:
        versions[MODELOPT] = before["versions"][MODELOPT]
        kept = {
            (row["tool"], row["form"]): row for row in before["rows"] if row["tool"] == AUTOCAST
        }
    result = {
        "rows": [kept[case] if case in kept else tried(*case) for case in CASES],
        "versions": versions,
        "commit": commit(),
        "date": strftime("%Y-%m-%d"),
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"→ {path}")


def tried(tool: str, form: str) -> dict[str, str]:
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
