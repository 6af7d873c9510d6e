"""The process that `tiedexport.audit.child` starts: opens sessions, and measures itself."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tiedexport.audit.child import Done, Job, OpenBundle, OpenGraphs, Optimise
from tiedexport.bundle import open_bundle
from tiedexport.errors import TiedExportError
from tiedexport.feeds import feeds
from tiedexport.memory import held_bytes
from tiedexport.runtimes import Options
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_CPU = ["CPUExecutionProvider"]
_EXTERNAL_FROM_BYTES = 1024


def main() -> None:
    """Jobs on standard input, answers into the file of the first argument."""
    # A graph may ask for any amount of memory: it gets an error before the machine gets none.
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    if available is not None:
        limits = int(available[1]) << 10, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Job])
    Path(sys.argv[1]).write_bytes(msgspec.json.encode([_do(job) for job in jobs]))


def _do(job: Job) -> Done:
    try:
        if isinstance(job, Optimise):
            return _optimise(job)
        return _open_graphs(job) if isinstance(job, OpenGraphs) else _open_bundle(job)
    except TiedExportError as error:
        return Done(f"{error.what}: {error.got}" if error.got else error.what)
    except Exception as error:  # the wall: each runtime has exceptions of its own
        return Done(" ".join(str(error).split()) or type(error).__name__)


def _optimise(job: Optimise) -> Done:
    from tiedexport.runtimes.onnxruntime import session_options

    options = session_options(Options(job.memory, threads=1))
    options.optimized_model_filepath = job.output
    prefix = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{prefix}_file_name", f"{Path(job.output).name}.data")
    options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_EXTERNAL_FROM_BYTES))
    _inference(job.graph, options)
    return Done()


def _open_graphs(job: OpenGraphs) -> Done:
    from tiedexport.runtimes.onnxruntime import session_options

    unrun: list[str] = []

    def open_all() -> list[Any]:
        unrun.clear()
        options = session_options(Options(job.memory, threads=1))
        options.enable_cpu_mem_arena = False  # which keeps what a run needed for a while
        sessions = [_inference(graph, options) for graph in job.graphs]
        unrun.extend(filter(None, map(_run_once, sessions)))
        return sessions

    grown_bytes = _growth(open_all, job.data)
    overhead_bytes = _overhead([_without_weights(nodes) for nodes in job.nodes])
    return Done("", grown_bytes, overhead_bytes, "; ".join(unrun), "onnxruntime")


def _open_bundle(job: OpenBundle) -> Done:
    from tiedexport.runtimes.onnxruntime import RELU_MODEL

    bundle = open_bundle(job.bundle, check="size")
    opened: dict[str, str] = {}

    def open_all() -> Any:
        session = open_session(
            bundle, runtime=job.runtime, precision=job.precision, memory=job.memory, threads=1
        )
        opened["runtime"], opened["precision"] = session.runtime, session.precision.value
        for stage in bundle.manifest.stages:
            spec = stage.inputs[0]
            session.run(stage.name, np.zeros((1, *spec.element_shape), spec.dtype.dtype))
        return session

    grown_bytes = _growth(open_all, job.data)
    counted = opened["runtime"].startswith("onnxruntime")
    models = [_without_weights(nodes) for nodes in job.nodes]
    models = models or [RELU_MODEL] * len(bundle.manifest.stages)
    overhead_bytes = _overhead(models) if counted else 0
    return Done("", grown_bytes, overhead_bytes, **opened)


def _growth(open_all: Callable[[], Any], data: Sequence[str]) -> int:
    """Bytes that what `open_all` returns holds.

    It is opened twice: the first time also loads libraries and starts thread pools.
    """
    files = [Path(name) for name in data]
    first = open_all()
    del first
    before = _settled(files)
    kept = open_all()
    grown = _settled(files) - before
    del kept
    return grown


def _overhead(models: Sequence[bytes]) -> int:
    """Bytes of a session of ONNX Runtime on each of some graphs without weights."""
    from tiedexport.runtimes.onnxruntime import session_options

    def open_all() -> list[Any]:
        options = session_options(Options(threads=1))
        options.enable_cpu_mem_arena = False
        opened = [_inference(model, options) for model in models]
        for session in opened:
            _run_once(session)
        return opened

    return max(0, _growth(open_all, ()))


def _without_weights(nodes: int) -> bytes:
    """A graph of as many layers of width 1, each with a weight and a bias of its own.

    A session keeps more of such a node than of one without: what it takes is never guessed short.
    """
    from onnx import TensorProto, helper

    def tensor(name: str, *shape: int) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, [1.0])

    names = [f"value_{index}" for index in range(nodes + 1)]
    layers = [
        helper.make_node("Gemm", [before, f"{after}.weight", f"{after}.bias"], [after])
        for before, after in pairwise(names)
    ]
    held = [tensor(f"{name}.weight", 1, 1) for name in names[1:]]
    held += [tensor(f"{name}.bias", 1) for name in names[1:]]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1])
        for name in (names[0], names[-1])
    ]
    graph = helper.make_graph(layers, "layers", ends[:1], ends[1:], held)
    opset = helper.make_opsetid("", 13)
    made: bytes = helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString()
    return made


def _settled(files: Sequence[Path]) -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # hand freed pages back, or they would count
    return held_bytes(files)


def _inference(model: str | bytes, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=_CPU)


def _run_once(session: Any) -> str:
    """Run on the first random inputs that it takes; why on none, or ""."""
    why = ""
    try:
        for _, candidates in feeds(session.get_inputs(), None):
            for feed in candidates:
                try:
                    session.run(None, feed)
                    return ""
                except Exception as error:  # the wall
                    why = why or " ".join(str(error).split())
    except ValueError as error:  # no inputs can be made up
        return str(error)
    return why


if __name__ == "__main__":
    main()
