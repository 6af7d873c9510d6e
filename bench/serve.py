"""What the real Triton server makes of a bundle: requests a second, latency, and memory.

python bench/serve.py NAME.tied [--callers 16] [--duration 2]

The server that `make test` installs serves encoder, decoder and autoencoder, two instances each,
on 127.0.0.1. `tiedexport bench --server` measures it over both protocols, beside the same calls in
process. Memory is Pss over all of the server's processes, of one layer of several sizes at the
default options, less what the same server holds of a tiny model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tritonclient.http
from record import record

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.memory import data_pss_bytes
from tiedexport.package import package
from tiedexport.package.triton import Options, model_name
from tiedexport.server_bench import server_bench
from tiedexport.spec import StageSpec
from tiedexport.suite import write_checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from triton_server import triton_server

INSTANCES = 2
TINY, LAYERS_MIB = (64, 32), (64, 256)
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--duration", type=float, default=2, help="seconds of each load")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        record("serve_memory", memory(Path(folder)))
        bundle = open_bundle(arguments.bundle)
        figures = load(bundle, arguments.callers, arguments.duration, Path(folder))
        record("serve", figures, shown(figures))


def memory(folder: Path) -> dict[str, Any]:
    """Pss over the weights' bytes, by the size of the layer in MiB."""
    base, _ = held_bytes(layer(TINY, folder / "tiny"), folder / "tiny")
    figures: dict[str, Any] = {"instances": INSTANCES, "models": 3, "tiny_bytes": base}
    for mib in LAYERS_MIB:
        wide = 1 << 14 if mib >= LAYERS_MIB[1] else 1 << 12
        bundle = layer((wide, mib * MIB // 4 // wide), folder / str(mib))
        weight_bytes = bundle.weights_path(bundle.manifest.precisions[0]).stat().st_size
        ready, used = held_bytes(bundle, folder / str(mib))
        figures[str(mib)] = {
            "width": wide,
            "weight_bytes": weight_bytes,
            "held_bytes": {"ready": ready, "used": used},
            "ready_above_tiny_over_weight": (ready - base) / weight_bytes,
            "used_above_tiny_over_weight": (used - base) / weight_bytes,
        }
    return figures


def layer(widths: tuple[int, ...], folder: Path) -> Bundle:
    """One tied layer with untrained weights, in fp32."""
    from tiedexport.export import build

    folder.mkdir()
    write_checkpoint(folder / "m.pt", list(widths))
    build(folder / "m.pt", folder / "m.tied", precision="fp32", target=())
    (folder / "m.pt").unlink()
    return open_bundle(folder / "m.tied")


def held_bytes(bundle: Bundle, folder: Path) -> tuple[int, int]:
    """What all processes of a server hold: when it is ready, and after large batches."""
    package(bundle, folder / "models", runtime="native", instances=INSTANCES)
    with triton_server(folder / "models", folder) as server:
        ready = sum(map(data_pss_bytes, server.processes))
        for stage in bundle.manifest.stages:
            ask_often(server.http, f"{model_name(bundle.manifest.name)}_{stage.name}", stage)
        return ready, sum(map(data_pss_bytes, server.processes))


def ask_often(address: str, model: str, stage: StageSpec) -> None:
    """Requests of the most rows, several at once, so that each instance gets some."""
    x = np.zeros((Options().max_batch, *stage.inputs[0].element_shape), np.float32)
    given = tritonclient.http.InferInput(stage.inputs[0].name, x.shape, "FP32")
    given.set_data_from_numpy(x)
    callers = 2 * INSTANCES
    with tritonclient.http.InferenceServerClient(address, concurrency=callers) as client:
        pending = [client.async_infer(model, [given]) for _ in range(8 * callers)]
        for request in pending:
            request.get_result()


def load(bundle: Bundle, callers: int, duration_s: float, folder: Path) -> dict[str, Any]:
    """`bench --server` over both protocols: protocol → its rows, and those in process."""
    package(bundle, folder / "models", runtime="native", precision="fp32", instances=INSTANCES)
    figures = {}
    with triton_server(folder / "models", folder) as server:
        for protocol, address in (("http", server.http), ("grpc", server.grpc)):
            result = server_bench(
                bundle, f"{protocol}://{address}", callers=callers, duration_s=duration_s
            )
            kept = msgspec.structs.replace(result, url=protocol)
            figures[protocol] = {
                name: msgspec.to_builtins(getattr(kept, name)) for name in ("rows", "loads")
            }
    return figures


def shown(figures: dict[str, Any]) -> dict[str, Any]:
    """Of each protocol and load: what was answered, and p99."""
    return {
        f"{protocol} {row['loop']} {row['callers'] or format(row['offered_per_s'], '.0f')}": (
            f"{row['achieved_per_s']:.0f}/s, p99 {row['latencies_s']['p99'] * 1e3:.1f} ms"
        )
        for protocol, found in figures.items()
        for row in found["rows"]
        if row["status"] == "passed"
    }


if __name__ == "__main__":
    main()
