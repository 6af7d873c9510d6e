"""Sizes of engine plans by mode and target, and what building them takes in time and memory.

python bench/build_engines.py [--mib 1,128,512] [--targets rtx:sm75,rtx:sm80,...] [--only baked]

One tied fp16 layer of each size. A fresh process builds the engines of one mode one after the
other, and two more do so while their memory is watched, which takes time; memory counts from when
the builder is loaded and the requests are ready. "peak" is Pss, and is held to the goal; it has in
it what is mapped of the bundle's own weights and of the plan that was written, "anonymous" has not.
At the smallest size every target is built for, at the others the last one named.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

from record import record

from tiedexport import engines, open_bundle, trt
from tiedexport.engine_build import graphs
from tiedexport.engine_build.shelf import PlanShelf
from tiedexport.engine_words import Weights
from tiedexport.engines import EngineRequest
from tiedexport.manifest import PlanRecord
from tiedexport.memory import PeakMemory, anonymous_bytes, pss_bytes
from tiedexport.spec import Precision
from tiedexport.suite import write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tiedexport.bundle import Bundle

    Measure = Callable[[int | None], int]

TARGETS = "rtx,rtx:sm75,rtx:sm80,rtx:sm86,rtx:sm120,rtx:sm89"
INTERVALS_S = {1: 0.002, 128: 0.01}
"""How often memory is sampled, by MiB; 0.02 above. The kernel walks every page each time."""

GOALS = {"shared": 0.2, "baked": 2.5, "one-plan": 2.5}
"""The most that building may take above its baseline, as a multiple of the weight, at 512 MiB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", default="1,128,512", help="of the weight in fp16")
    parser.add_argument("--targets", default=TARGETS)
    parser.add_argument("--only", choices=get_args(Weights))
    parser.add_argument("--build", nargs=3, metavar=("BUNDLE", "MODE", "TARGET"))
    arguments = parser.parse_args()
    if arguments.build:
        _build(*arguments.build)
        return
    sizes = sorted(int(size) for size in arguments.mib.split(","))
    targets = arguments.targets.split(",")
    modes: Sequence[Weights] = [arguments.only] if arguments.only else get_args(Weights)
    for size in sizes:
        figures: dict[str, Any] = {"weight_bytes": size << 20}
        with tempfile.TemporaryDirectory() as folder:
            bundle = _bundle(Path(folder), size << 20)
            for target in targets if size == sizes[0] else targets[-1:]:
                for mode in modes:
                    found, _ = _build_apart(bundle, mode, target, None, size)
                    for name, measure in (("peak", pss_bytes), ("anonymous", anonymous_bytes)):
                        _, above = _build_apart(bundle, mode, target, measure, size)
                        found[f"{name}_bytes"] = above
                        found[f"{name}_over_weight"] = above / (size << 20)
                    figures |= {f"{target} {mode} {name}": value for name, value in found.items()}
        record(f"build_engines_{size}", figures)
        if size == sizes[-1] and size >= 512:
            _judge(figures, targets[-1], modes)


def _bundle(folder: Path, weight_bytes: int) -> Path:
    """An untrained tied layer in fp16, whose inputs are at least as wide as its code."""
    elements = weight_bytes // Precision.FP16.itemsize
    code = 1 << int(math.log2(elements)) // 2
    write_checkpoint(folder / "model.pt", [elements // code, code])
    command = [sys.executable, "-m", "tiedexport", "build", str(folder / "model.pt"), "-q"]
    command += ["--precision", "fp16", "--target", "none"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    (folder / "model.pt").unlink()
    return folder / "model.tied"


def _build_apart(
    bundle: Path, mode: Weights, target: str, measure: Measure | None, mib: int
) -> tuple[dict[str, Any], int]:
    """Build all engines of a mode in one process, and sample its memory if there is a measure.

    Returns:
        Sizes and seconds by stage, and how far memory rose above what it was before, in bytes.
    """
    command = [sys.executable, __file__, "--build", str(bundle), mode, target]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            sys.exit(f"{mode} for {target}: the builder did not start")
        memory = None
        if measure is not None:
            interval_s = INTERVALS_S.get(mib, 0.02)
            memory = stack.enter_context(PeakMemory(process.pid, interval_s, measure))
        process.stdin.write("go\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    if process.returncode != 0:
        sys.exit(f"{mode} for {target}: rc {process.returncode}")
    above = memory.peak_bytes - memory.start_bytes if memory is not None else 0
    return json.loads(answer), above


def _build(path: str, mode: Weights, target: str) -> None:
    """In the measured process: get ready, wait for the word, build, and say what came of it."""
    builder = engines.builder_for(target)
    trt.load(builder.name)
    bundle = open_bundle(path, check="size")
    requests = list(_requests(bundle, mode, target))
    print("ready", flush=True)
    sys.stdin.readline()
    sizes, seconds = {}, {}
    with tempfile.TemporaryDirectory(dir=bundle.path.parent) as folder:
        shelf = PlanShelf(Path(folder))
        for request in requests:
            start = perf_counter()
            engine = builder.build(request)
            shelf.put(engine.plan, _record(request), engine.notes)
            seconds[f"{request.stage.name}_s"] = perf_counter() - start
            sizes[f"{request.stage.name}_bytes"] = len(engine.plan)
            del engine
    print(json.dumps(sizes | seconds), flush=True)


def _requests(bundle: Bundle, mode: Weights, target: str) -> Iterator[EngineRequest]:
    (precision,) = bundle.manifest.precisions
    for stage in graphs.stages(bundle.manifest, mode):
        graph = bundle.path / graphs.graph(bundle, stage.name, precision, mode)
        names = tuple(bundle.weights(precision))
        yield EngineRequest(stage, precision, target, graph, mode, names)


def _record(request: EngineRequest) -> PlanRecord:
    """As much as the shelf needs to name a file."""
    name, precision, target = request.stage.name, request.precision, request.target
    return PlanRecord("", name, precision, target, "", "", (), request.weights, (), "", key=name)


def _judge(figures: dict[str, Any], target: str, modes: Sequence[Weights]) -> None:
    """Exit non-zero where memory is above its goal."""
    over = {mode: figures[f"{target} {mode} peak_over_weight"] for mode in modes}
    for mode, found in over.items():
        print(f"{mode}: {found:.2f} x the weight, at most {GOALS[mode]}")
    if any(found > GOALS[mode] for mode, found in over.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
