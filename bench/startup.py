"""How long a fresh process takes to help, and to a first output.

python bench/startup.py NAME.tied
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

from record import record

FIRST_OUTPUT = """
import sys
import numpy as np
import tiedexport
bundle = tiedexport.open_bundle(sys.argv[1])
spec = bundle.manifest.stage("autoencoder").inputs[0]
x = np.zeros((1, *spec.element_shape), spec.dtype.dtype)
with tiedexport.open_session(bundle, runtime="onnxruntime", precision="fp32") as session:
    session.reconstruct(x)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--processes", type=int, default=15)
    arguments = parser.parse_args()
    python = sys.executable
    commands = {
        "help_s": [python, "-m", "tiedexport", "--help"],
        "first_output_s": [python, "-c", FIRST_OUTPUT, arguments.bundle],
        "bare_python_s": [python, "-c", ""],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(arguments.processes + 1):
        for name, command in commands.items():
            start = perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if turn > 0:  # the first turn compiles bytecode and fills the page cache
                seconds[name].append(perf_counter() - start)
    figures = {name: median(values) for name, values in seconds.items()}
    record("startup", {**figures, "processes": arguments.processes})


if __name__ == "__main__":
    main()
