"""What a session's call costs over the bare ONNX Runtime call on the same graph, at batch 1.

python bench/session_overhead.py NAME.tied
"""

from __future__ import annotations

import argparse

import numpy as np
import onnxruntime
from record import record, take_turns

from tiedexport import open_bundle, open_session
from tiedexport.runtimes import Options
from tiedexport.runtimes.onnxruntime import session_options
from tiedexport.spec import Precision

CALLS_A_ROUND = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    spec = bundle.manifest.stage("autoencoder").inputs[0]
    x = bundle.golden[spec.name][:1].astype(spec.dtype.dtype)
    session = open_session(bundle, runtime="onnxruntime", precision="fp32", threads=1)
    bare = onnxruntime.InferenceSession(
        str(bundle.graph("autoencoder", Precision.FP32)),
        session_options(Options(threads=1)),
        providers=["CPUExecutionProvider"],
    )
    feed = {spec.name: x}
    np.testing.assert_array_equal(session.reconstruct(x), bare.run(None, feed)[0])

    def ours() -> None:
        for _ in range(CALLS_A_ROUND):
            session.reconstruct(x)

    def theirs() -> None:
        for _ in range(CALLS_A_ROUND):
            bare.run(None, feed)

    figures = take_turns(ours, theirs, arguments.rounds)
    for name in ("ours_s", "theirs_s"):
        figures[name] /= CALLS_A_ROUND
    record("session_overhead", {**figures, "rounds": arguments.rounds})


if __name__ == "__main__":
    main()
