"""Everything that a machine without a GPU cannot prove, in one call; see bench/README.md.

python bench/gpu_acceptance.py [NAME.tied] [-o FOLDER] [options of tiedexport bench --acceptance]

The same as `tiedexport bench --acceptance`, with the results kept beside those of the benches, by
device. It ends with 0 where every section passed, 1 where one disagreed, 3 where one could not run.
"""

from __future__ import annotations

import re
import sys

from record import RESULTS

from tiedexport import trt
from tiedexport.__main__ import main


def folder() -> str:
    """Where this device's results are kept."""
    device = trt.device()
    name = "no-gpu" if device is None else re.sub(r"[^a-z0-9]+", "-", device.name.lower())
    return str(RESULTS / "gpu" / name.strip("-"))


if __name__ == "__main__":
    # Of two folders the last one counts: the user's.
    sys.argv[1:] = ["bench", "--acceptance", "-o", folder(), *sys.argv[1:]]
    main()
