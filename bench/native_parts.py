"""The parts of `native.py`, each for a number of threads: figures to keep, and lines to show."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from contenders import Program, contender, race, statistics, timed, turn_of
from memory import measure
from native_goals import BASE, READING
from ways import Way, missing

import tiedexport
from tiedexport import native_library, open_bundle, open_session
from tiedexport.contender import golden_inputs
from tiedexport.errors import TiedExportError
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from contenders import Turn

    from tiedexport.contender import Contender

    Part = tuple[dict[str, Any], dict[str, str]]

WAYS = (
    Way("native", "fp32"),
    Way("native", "fp16"),
    Way("native", "bf16"),
    Way("onnxruntime", "fp32", "default"),
    Way("onnxruntime", "fp32"),
    Way("torch", "fp32", "eager"),
    Way("torch", "fp32", "compiled"),
    Way("openvino", "fp32", "default"),
    Way("openvino", "bf16", "default"),
)
INCLUDE = Path(tiedexport.__file__).parent / "cpp" / "include"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        widths: of the models.
        rounds: by batch size.
        small_factor: of a model whose calls are short, so many times as many rounds.
        warmup_s, rest_s: before a case, and before each turn with several threads.
        opens: fresh processes of each way.
        calls: in a turn, of so many turns, from C and from Python.
    """

    widths: dict[str, list[int]]
    rounds: dict[int, int]
    small_factor: int
    warmup_s: float
    rest_s: float
    opens: int
    calls: tuple[int, int]


FULL = Size(
    {"layer": [16384, 4096], "digits": [784, 784, 392, 196], "tiny": [64, 16]},
    {1: 31, 8: 21, 64: 11, 256: 7},
    small_factor=3,
    warmup_s=0.2,
    rest_s=0.02,
    opens=3,
    calls=(50, 100),
)
QUICK = Size(
    {"layer": [96, 40], "digits": [32, 32, 16, 8], "tiny": [8, 4]},
    {1: 3, 8: 2},
    small_factor=1,
    warmup_s=0.0,
    rest_s=0.0,
    opens=2,
    calls=(3, 4),
)


@dataclass(frozen=True)
class Setup:
    """What all parts begin with.

    Attributes:
        models: name → path of its bundle.
        folder: for what is compiled.
        absent: way → why it cannot run here.
    """

    models: dict[str, str]
    size: Size
    ways: list[Way]
    folder: Path
    absent: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        reasons = {str(way): missing(way) for way in self.ways}
        object.__setattr__(self, "absent", {way: why for way, why in reasons.items() if why})

    def weights(self, precision: str) -> Path:
        """The weights of the layer."""
        bundle = open_bundle(self.models["layer"], check="size")
        return bundle.weights_path(Precision(precision))


def latency(setup: Setup, threads: int) -> Part:
    """Seconds of the autoencoder in every way, on both models, at each batch size."""
    cases: dict[str, dict[str, Any]] = {}
    for model in ("layer", "digits"):
        with ExitStack() as alive:
            racers, absent = _line_up(setup, model, threads, alive)
            for batch, rounds in setup.size.rounds.items():
                case: dict[str, Any] = {"not_run": dict(absent)}
                turns = _turns(setup, racers, batch, case["not_run"])
                if (model, batch) == ("layer", 1):
                    turns |= _reading(setup, threads, alive, case["not_run"])
                case["rounds"] = rounds * (setup.size.small_factor if model == "digits" else 1)
                found, failed = race(turns, case["rounds"], _rest_s(setup, threads))
                case["not_run"] |= failed
                case["contenders"] = {
                    name: statistics(seconds, None if READING in name else found.get(BASE))
                    for name, seconds in found.items()
                }
                cases[f"{model} batch {batch}"] = case
    figures = {"threads": threads, "read_bytes": setup.weights("fp32").stat().st_size}
    return figures | {"cases": cases}, _shown_cases(cases)


def _rest_s(setup: Setup, threads: int) -> float:
    return 0.0 if threads == 1 else setup.size.rest_s


def _line_up(
    setup: Setup, model: str, threads: int, alive: ExitStack
) -> tuple[dict[str, Contender], dict[str, str]]:
    racers: dict[str, Contender] = {}
    absent = dict(setup.absent)
    for way in setup.ways:
        if (name := str(way)) in absent:
            continue
        try:
            racers[name] = contender(way, setup.models[model], threads)
        except TiedExportError as error:
            absent[name] = str(error)
        else:
            alive.callback(racers[name].close)
    return racers, absent


def _turns(
    setup: Setup, racers: dict[str, Contender], batch: int, failed: dict[str, str]
) -> dict[str, Turn]:
    turns = {}
    for name, racer in racers.items():
        try:
            call_s = racer.prepare("autoencoder", batch, setup.size.warmup_s).call_s
        except TiedExportError as error:
            failed[name] = str(error)
        else:
            turns[name] = turn_of(name, racer.take_turn, call_s)
    return turns


def _reading(
    setup: Setup, threads: int, alive: ExitStack, failed: dict[str, str]
) -> dict[str, Turn]:
    """A turn that only reads, in several ways, as much memory as the layer's weights take."""
    weights = setup.weights("fp32")
    size_bytes = weights.stat().st_size
    try:
        program = Program("read_bandwidth.c", setup.folder, [], [threads, size_bytes, weights])
    except TiedExportError as error:
        failed[READING] = str(error)
        return {}
    alive.enter_context(program)

    def turn() -> dict[str, float]:
        pairs = (word.split("=") for word in program.ask("").split())
        return {f"{READING} {name}": int(nanoseconds) / 1e9 for name, nanoseconds in pairs}

    return {READING: turn}


def _shown_cases(cases: dict[str, dict[str, Any]]) -> dict[str, str]:
    shown = {}
    for name, case in cases.items():
        for way, found in case["contenders"].items():
            speed = f", {found['speed']:.2f} × {BASE}" if "speed" in found else ""
            shown[f"{name}: {way}"] = f"{found['median_s'] * 1e3:.3f} ms{speed}"
        shown |= {f"{name}: {way}": f"not run: {why}" for way, why in case["not_run"].items()}
    return shown


def memory(setup: Setup, threads: int) -> Part:
    """Of fresh processes: what all stages hold after batch 1 and 64, and the first output."""
    tiny, layer = setup.models["tiny"], setup.models["layer"]
    ways = [way for way in setup.ways if str(way) not in setup.absent and way.runtime != "torch"]
    turns: dict[Way, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(setup.size.opens):
        for way in ways[:: -1 if number % 2 else 1]:
            stored = "fp32" if way.runtime == "openvino" else way.precision
            weight_bytes = setup.weights(stored).stat().st_size
            turns[way].append(measure(way, tiny, layer, 1, weight_bytes, threads))
    found = {
        str(way): {name: median(turn[name] for turn in taken) for name in taken[0]}
        for way, taken in turns.items()
    }
    shown = {
        name: f"{one['one_over_weight']:.3f} × the weight, first output after "
        f"{one['first_output_s'] * 1e3:.1f} ms"
        for name, one in found.items()
    }
    return {"threads": threads, "contenders": found, "not_run": setup.absent}, shown


def calls(setup: Setup, threads: int) -> Part:
    """Seconds of a call at batch 1 from C and from Python, on the digits and on a tiny model."""
    figures: dict[str, Any] = {"threads": threads, "models": {}, "not_run": {}}
    for model in ("digits", "tiny"):
        try:
            figures["models"][model] = _calls(setup, setup.models[model], threads)
        except TiedExportError as error:
            figures["not_run"][model] = str(error)
    shown = {
        f"{model}: {name}": f"{one['median_s'] * 1e6:.1f} µs"
        for model, found in figures["models"].items()
        for name, one in found.items()
    }
    reasons = {model: f"not run: {why}" for model, why in figures["not_run"].items()}
    return figures, shown | reasons


def _calls(setup: Setup, path: str, threads: int) -> dict[str, dict[str, float]]:
    bundle, (in_a_turn, rounds) = open_bundle(path, check="size"), setup.size.calls
    x = golden_inputs(bundle, bundle.manifest.stage("autoencoder"), 1)
    out = np.empty_like(x)
    with (
        open_session(bundle, runtime="native", precision="fp32", threads=threads) as session,
        Program("direct_call.c", setup.folder, _library(), [path, "fp32", threads]) as program,
    ):
        from_python = {
            "reconstruct(x)": partial(session.reconstruct, x),
            "reconstruct(x, out)": partial(session.reconstruct, x, out),
            "bind": session.bind("autoencoder", x, out),
        }
        takers = {name: partial(timed, call) for name, call in from_python.items()}
        takers["C"] = program.take_turn

        def turn(name: str) -> dict[str, float]:
            return {name: float(np.median(takers[name](in_a_turn))) / 1e9}

        turns = {name: partial(turn, name) for name in takers}
        found, failed = race(turns, rounds, _rest_s(setup, threads))
    if failed:
        raise TiedExportError("a call failed", got=failed)
    return {name: statistics(seconds, found["C"]) for name, seconds in found.items()}


def _library() -> list[str]:
    """How a C program finds the library that Python uses."""
    path = Path(native_library.load()._name).resolve()
    return [f"-I{INCLUDE}", str(path), f"-Wl,-rpath,{path.parent}"]
