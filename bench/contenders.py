"""What takes turns in `native.py`: ways to run a bundle, and small C programs beside them."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from statistics import median, quantiles
from time import sleep
from typing import TYPE_CHECKING, Any

import numpy as np
from ways import Way, opened

from tiedexport import open_bundle
from tiedexport.contender import Contender, RemoteContender, timed, warm_up
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError, TiedExportError
from tiedexport.measure.turns import LONGEST_LED_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

    from tiedexport.results.bench import WarmUp

    Turn = Callable[[], dict[str, float]]

TURN_S = 0.005
"""The shortest turn."""

FARTHEST = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""From float64, of outputs in [0, 1]: nearer than this no wrong computation comes."""


class WayContender:
    """A bundle opened in one way, called through what it binds."""

    def __init__(self, way: Way, path: str, threads: int) -> None:
        self.way, self._bundle = way, open_bundle(path, check="size")
        self._opened = opened(way, path, threads)
        self._call: Callable[[], None] = lambda: None

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """Bind random inputs, golden ones first; refuse to time what computes something else."""
        spec, into = (side[0] for side in _sides(self._bundle, stage))
        golden = self._bundle.golden[spec.name][:batch]
        shape = (batch, *spec.element_shape)
        x = np.random.default_rng(0).random(shape).astype(spec.dtype.dtype)
        x[: len(golden)] = golden
        out = np.zeros((batch, *into.element_shape), into.dtype.dtype)
        self._call = self._opened.bind(stage, x, out)
        self._call()
        error = np.abs(out[: len(golden)] - self._bundle.golden[into.name][:batch]).max()
        if not error <= FARTHEST[self.way.precision]:
            raise RuntimeFailedError(f"{self.way} computes something else: off by {error:.2g}")
        return warm_up(self.take_turn, warmup_s)

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each of `calls` consecutive calls."""
        return timed(self._call, calls)

    def close(self) -> None:
        """Free what it opened."""
        self._opened.close()


def _sides(bundle: Any, stage: str) -> tuple[Any, Any]:
    found = bundle.manifest.stage(stage)
    return found.inputs, found.outputs


def contender(way: Way, path: str, threads: int) -> Contender:
    """In this process with one thread, else in its own: idle pools that spin starve each other.

    Raises:
        TiedExportError: the bundle cannot be opened in this way.
    """
    if threads == 1:
        return WayContender(way, path, threads)
    return RemoteContender(WayContender, way, path, threads)


class Program:
    """A C program of this folder, compiled here, that answers each line with nanoseconds.

    Raises:
        MissingRuntimeError: there is no compiler, or it fails.
    """

    def __init__(
        self, source: str, folder: Path, flags: Iterable[str], arguments: Iterable[object]
    ) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise MissingRuntimeError("no C compiler: apt-get install gcc")
        program = folder / Path(source).stem
        command = [compiler, "-O3", "-march=native", "-pthread", "-o", str(program)]
        command += [str(Path(__file__).with_name(source)), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MissingRuntimeError(f"{source} does not compile", got=done.stderr)
        self._process = subprocess.Popen(
            [program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: object) -> str:
        """Its answer to a line.

        Raises:
            RuntimeFailedError: it ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeFailedError(f"{self._process.args!r} ended", got=self._process.wait())
        return answer

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each of `calls` consecutive calls."""
        return np.array(self.ask(calls).split(), np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def turn_of(name: str, take_turn: Callable[[int], np.ndarray], call_s: float) -> Turn:
    """A turn of as many calls as `TURN_S` takes; its figure is the median call, in seconds."""
    calls = math.ceil(TURN_S / max(call_s, 1e-9))
    untimed = int(call_s <= LONGEST_LED_S)

    def turn() -> dict[str, float]:
        return {name: float(np.median(take_turn(calls + untimed)[untimed:])) / 1e9}

    return turn


def race(
    turns: Mapping[str, Turn], rounds: int, rest_s: float
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Take turns round by round, forwards and backwards.

    Args:
        turns: name → its turn, which gives a figure, or several by name.
        rounds: how many.
        rest_s: before each turn, so that the threads of the one before fall asleep.

    Returns:
        Name of a figure → a figure a round; name of a turn → why it failed.
    """
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in turns}
    failed: dict[str, str] = {}
    for number in range(rounds):
        for name in list(figures)[:: -1 if number % 2 else 1]:
            sleep(rest_s)
            try:
                found = turns[name]()
            except TiedExportError as error:
                failed[name] = str(error)
                del figures[name]
                continue
            for figure, seconds in found.items():
                figures[name].setdefault(figure, []).append(seconds)
    whole = {name: seconds for by in figures.values() for name, seconds in by.items()}
    return whole, failed


def statistics(seconds: list[float], base: list[float] | None) -> dict[str, float]:
    """Of a contender's rounds, and its speed against the base's, whose rounds are the same."""
    low, _, high = quantiles(seconds, n=4)
    found = {
        "median_s": median(seconds),
        "lower_quartile_s": low,
        "upper_quartile_s": high,
        "min_s": min(seconds),
    }
    if base is None:
        return found
    ratios = [theirs / ours for ours, theirs in zip(seconds, base, strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return found | {
        "speed": median(base) / median(seconds),
        "speed_by_round": middle,
        "speed_by_round_lower_quartile": low,
        "speed_by_round_upper_quartile": high,
    }
