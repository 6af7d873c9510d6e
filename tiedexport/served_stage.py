"""One stage of a server: what to ask of it, and within which bounds its answers should be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import layerwise
from tiedexport.contender import golden_inputs
from tiedexport.errors import BadInputError
from tiedexport.open_loop import Reply
from tiedexport.results.server import ServerLoad
from tiedexport.runtimes import all_runtimes
from tiedexport.triton_client import RequestFailedError

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Runtime
    from tiedexport.spec import Precision, StageSpec
    from tiedexport.triton_client import Question, ServedModel, TritonClient

_INPUTS = 8
"""Different requests, sent in turn."""


@dataclass(frozen=True)
class Target:
    """One stage of a server at one batch size, and what it should answer.

    Attributes:
        questions: requests, each with golden samples of its own.
        low, high: bounds of the answer to each, [batch, ...] in float64.
        row: an empty one.
    """

    client: TritonClient
    questions: list[Question]
    low: list[np.ndarray]
    high: list[np.ndarray]
    row: ServerLoad

    async def ask(self, number: int) -> Reply:
        """Send one of the requests, note when its answer is there, then compare."""
        which = number % len(self.questions)
        loop = asyncio.get_running_loop()
        try:
            found, version = await self.client.ask(self.questions[which])
        except RequestFailedError as error:
            return Reply(loop.time(), "failed", why=str(error.got or error.what))
        at_s = loop.time()
        if why := self._beyond(found, which):
            return Reply(at_s, "different", version, why)
        return Reply(at_s, "good", version)

    def _beyond(self, found: np.ndarray, which: int) -> str:
        low, high = self.low[which], self.high[which]
        if found.shape != low.shape:
            return f"an answer of shape {list(found.shape)}, expected {list(low.shape)}"
        within = (found >= low) & (found <= high)  # no NaN is
        count = int(within.size - np.count_nonzero(within))
        return f"{count} of {within.size} outputs beyond their bound" if count else ""


async def target(
    bundle: Bundle,
    stage: StageSpec,
    batch: int,
    client: TritonClient,
    served: ServedModel,
    server: str,
) -> Target:
    """What to ask of a stage and what is answered, in the precision that the server computes in.

    Where the server does not tell which, it is the most precise one whose bounds hold. Every
    question is asked once: the answers tell whether the server has this bundle's weights.

    Args:
        bundle: whose golden samples are asked for.
        stage: one of its stages.
        batch: samples a request.
        client: connected to the server.
        served: the stage's model there.
        server: its name and version.

    Raises:
        BadInputError: the model has other inputs or outputs, or an answer is beyond its bound.
        RequestFailedError: the server does not answer.
    """
    _refuse_other_tensors(stage, served, client.url)
    name, wanted = stage.inputs[0].name, stage.outputs[0].name
    inputs = _windows(golden_inputs(bundle, stage, batch + _INPUTS - 1), batch)
    questions = [client.question(served.name, {name: x}, wanted) for x in inputs]
    runs_on = f"{server.partition(' ')[0]} over {client.protocol}"
    runtime = all_runtimes().get(served.parameters.get("runtime", ""))
    held = sorted(bundle.manifest.precisions, key=lambda kind: kind.unit_roundoff)
    told = [kind for kind in held if kind == served.parameters.get("precision")]
    for precision in told or held:
        low, high = (_windows(b, batch) for b in _bounds(bundle, stage, precision, runtime))
        row = ServerLoad(runs_on, stage.name, precision, batch, "closed", "not run")
        found = Target(client, questions, low, high, row)
        if not (why := await _beyond_bounds(found)):
            return found
    raise BadInputError(
        "the server's answers are not those of this bundle",
        where=f"{client.url}: {served.name}",
        got=why,
        expected=f"the golden values of {bundle.path.name} within verify's bounds",
        hint="name the bundle that is served, or serve this one: tiedexport package",
    )


async def _beyond_bounds(asked: Target) -> str:
    """What is wrong with the answers to every question; "" where nothing is."""
    for number in range(_INPUTS):
        reply = await asked.ask(number)
        if reply.verdict == "failed":
            raise RequestFailedError(
                "the server failed the first requests",
                where=f"{asked.client.url}: {asked.questions[0].model}",
                got=reply.why,
            )
        if reply.verdict == "different":
            return reply.why
    return ""


def _bounds(
    bundle: Bundle, stage: StageSpec, precision: Precision, runtime: Runtime | None
) -> tuple[np.ndarray, np.ndarray]:
    """Between which the answers to the golden samples should be, each [n, ...] in float64."""
    # A server that does not tell promises no sums wider than what it computes in.
    accumulation = runtime.accumulation.get(precision, precision) if runtime else precision
    *_, expected = layerwise.expected(bundle, stage, precision, accumulation)
    bound = expected.bounded.bound
    return expected.golden - bound, expected.golden + bound


def _windows(values: np.ndarray, batch: int) -> list[np.ndarray]:
    """Of each request the rows that belong to its samples, repeated as those are."""
    rows = np.resize(np.arange(len(values)), batch + _INPUTS - 1)
    return [values[rows[first : first + batch]] for first in range(_INPUTS)]


def _refuse_other_tensors(stage: StageSpec, served: ServedModel, url: str) -> None:
    for spec, tensors in ((stage.inputs[0], served.inputs), (stage.outputs[0], served.outputs)):
        wanted = (f"FP{spec.dtype.itemsize * 8}", (-1, *spec.element_shape))
        if tensors.get(spec.name) != wanted:
            raise BadInputError(
                "the server's model is not of this bundle",
                where=f"{url}: {served.name}",
                got="; ".join(f"{name}: {kind}{list(s)}" for name, (kind, s) in tensors.items()),
                expected=f"{spec.name}: {wanted[0]}{list(wanted[1])}",
                hint="name the models with --model, or the bundle that is served",
            )
