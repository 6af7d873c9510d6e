"""The engines of a bundle: each is known by a key, and taken over where that has not changed.

A key is the digest of all that determines a plan. A plan of that key may stand in the bundle that
is being replaced, or lie on the shelf since an earlier call was killed. A plan whose builder or GPU
is missing here is kept if it is what that builder would be asked for again: weight-free plans live
through a new checkpoint that way.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

import tiedexport
from tiedexport import atomic, engines
from tiedexport.bundle import file_sha256, safetensors_layout
from tiedexport.engine_build import graphs
from tiedexport.engine_build.jobs import Steps, jobs_for, plans_that_stand, telling
from tiedexport.errors import TiedExportError
from tiedexport.manifest import PlanRecord
from tiedexport.plan_search import weights_in_plan
from tiedexport.results import EngineOutcome
from tiedexport.stored import in_memory

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.engine_build.jobs import Job, Tell, Wanted
    from tiedexport.engine_build.shelf import PlanShelf
    from tiedexport.engines import Engine, EngineBuilder, EngineRequest


@dataclass
class Made:
    """What became of the engines that were wanted."""

    plans: list[PlanRecord] = field(default_factory=list)
    outcomes: list[EngineOutcome] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """A plan that is whole: its record, where it lies, and what to tell of it."""

    record: PlanRecord
    path: Path
    notes: tuple[str, ...] = ()
    reused: bool = True


class EngineBuild:
    """Builds engines into a bundle that is being written.

    Args:
        draft: its directory, with graphs and weights in it, and its manifest so far.
        standing: the bundle that it will replace.
        wanted: what to build.
        shelf: where finished plans wait for the bundle to be whole.
    """

    def __init__(
        self, draft: Bundle, standing: Bundle | None, wanted: Wanted, shelf: PlanShelf
    ) -> None:
        self._draft, self._standing = draft, standing
        self._wanted, self._shelf = wanted, shelf
        self._jobs = {
            target: tuple(jobs_for(target, draft, standing, wanted)) for target in wanted.targets
        }
        self._digest = cache(file_sha256)
        self._graphs: set[str] = set()  # of engines alone

    @property
    def count(self) -> int:
        """How many engines were asked for."""
        return sum(map(len, self._jobs.values()))

    def run(self, tell: Tell) -> Made:
        """Build, take over or keep every engine; what cannot be is an outcome with a reason.

        Args:
            tell: called with how many are done, part of one included, and a few words.
        """
        made, done = Made(), 0
        for target, jobs in self._jobs.items():
            availability = engines.builder_for(target).availability(target)
            if not availability.available and not any(map(self._standing_plan, jobs)):
                row = EngineOutcome(target, "", None, "not run", availability.why)
                made.outcomes.append(row)
                done += len(jobs)
                tell(done, f"not {target}")
                continue
            for job in jobs:
                if availability.available:
                    outcome = self._build(job, made, Steps(tell, done, job))
                else:
                    outcome = self._keep(job, made, availability.why)
                made.outcomes.append(outcome)
                done += 1
                tell(done, f"{job.stage.name} {job.precision} for {target}")
        for file in self._graphs - {p.graph for p in (*self._draft.manifest.plans, *made.plans)}:
            (self._draft.path / file).unlink()
        return made

    def _build(self, job: Job, made: Made, steps: Steps) -> EngineOutcome:
        start = time.perf_counter()
        builder = engines.builder_for(job.target)
        key = self._key(builder, job)
        plan = None if self._wanted.force else self._unchanged(key)
        if plan is None:  # what was built where there is a driver needs none now
            request = self._request(job)
            if (refusal := builder.refusal(request)) is not None:
                return job.outcome("not run", refusal)
            try:
                plan = self._built(builder.build(request, steps), job, key)
            except TiedExportError as error:
                return job.outcome("failed", _reason(error))
        return self._install(plan, job, made, start)

    def _keep(self, job: Job, made: Made, why: str) -> EngineOutcome:
        """Keep the plan that stands, where the missing builder would be asked for it again."""
        record = self._standing_plan(job)
        if record is None:
            return job.outcome("not run", why)
        if changed := self._changed(record, job):
            reason = f"{why}; the plan that stands is of other {changed} and is not taken over"
            return job.outcome("not run", reason)
        notes = (f"kept: built by {record.package} {record.package_version} elsewhere",)
        plan = _Plan(record, self._standing_path(record), notes)
        return self._install(plan, job, made, time.perf_counter())

    def _request(self, job: Job) -> EngineRequest:
        return engines.EngineRequest(
            job.stage,
            job.precision,
            job.target,
            self._graph(job),
            job.weights,
            tuple(safetensors_layout(self._draft.weights_path(job.precision))),
            job.options,
            self._draft.manifest.kept.get(job.precision, {}),
            self._wanted.timing_cache,
        )

    def _graph(self, job: Job) -> Path:
        file = graphs.graph(self._draft, job.stage.name, job.precision, job.weights)
        if job.weights != "baked":
            self._graphs.add(file)
        return self._draft.path / file

    def _key(self, builder: EngineBuilder, job: Job) -> str:
        facts = {
            "told by": tiedexport.__version__,  # versions of ours may tell builders other things
            "made by": builder.fingerprint(job.target),
            "stage": job.stage.name,
            "precision": job.precision,
            "kept": self._draft.manifest.kept.get(job.precision, {}),
            "weights": job.weights,
            "options": telling(job.effective_options),
            "graph": self._digest(self._graph(job)),
            "content": self._stored(job),
        }
        return sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()

    def _stored(self, job: Job) -> str:
        """The digest of the weights that go into the plan itself, if any do."""
        baked = job.weights != "shared"
        return self._digest(self._draft.weights_path(job.precision)) if baked else ""

    def _unchanged(self, key: str) -> _Plan | None:
        if (shelved := self._shelf.take(key)) is not None:
            return _Plan(shelved.record, self._shelf.path(key), shelved.notes)
        for record in plans_that_stand(self._standing):
            if record.key == key and self._is_whole(record):
                return _Plan(record, self._standing_path(record))
        return None

    def _changed(self, record: PlanRecord, job: Job) -> str:
        """In what a standing plan differs from what is wanted now; empty if in nothing."""
        assert self._standing is not None  # it holds the plan
        files = self._standing.manifest.files
        asked = job.weights, telling(job.effective_options)
        if (record.weights, telling(record.options)) != asked:
            return "options"
        if record.graph_sha256 != self._digest(self._graph(job)):
            return "graph"
        weights = self._standing.manifest.weights[job.precision]
        if (stored := self._stored(job)) and stored != files[weights].sha256:
            return "weights"
        return "" if self._is_whole(record) else "bytes than the manifest says"

    def _standing_plan(self, job: Job) -> PlanRecord | None:
        plans = plans_that_stand(self._standing)
        wanted = job.target, job.stage.name, job.precision
        return next((p for p in plans if (p.target, p.stage, p.precision) == wanted), None)

    def _standing_path(self, record: PlanRecord) -> Path:
        assert self._standing is not None  # it holds the plan
        return self._standing.path / record.file

    def _is_whole(self, record: PlanRecord) -> bool:
        assert self._standing is not None  # it holds the plan
        path = self._standing_path(record)
        known = self._standing.manifest.files[record.file].sha256
        return path.is_file() and self._digest(path) == known

    def _built(self, engine: Engine, job: Job, key: str) -> _Plan:
        graph = self._graph(job)
        record = PlanRecord(
            file=job.file,
            stage=job.stage.name,
            precision=job.precision,
            target=job.target,
            package=engine.package,
            package_version=engine.package_version,
            compute_capabilities=engine.compute_capabilities,
            weights=job.weights,
            bindings=engine.bindings,
            graph_sha256=self._digest(graph),
            options=engine.options,
            graph=graph.relative_to(self._draft.path).as_posix(),
            layers=engine.layers,
            key=key,
        )
        self._shelf.put(engine.plan, record, engine.notes)
        path = self._shelf.path(key)
        held = self._held(path, job) if engine.notes and job.weights != "shared" else ()
        return _Plan(record, path, (*engine.notes, *held), reused=False)

    def _held(self, plan: Path, job: Job) -> tuple[str, ...]:
        """How often a plan really holds each weight: its bytes are searched."""
        weights = self._draft.weights(job.precision)
        matrices = [in_memory(name, weight) for name, weight in weights.items() if weight.ndim > 1]
        found = Counter(found.weight.name for found in weights_in_plan(plan, matrices).found)
        used = {layer.weight for layer in job.stage.layers}
        held = {name: found[name] for name in weights if name in used}
        if set(held.values()) == {1}:
            return ("its bytes were searched: the plan holds every weight once",)
        words = {0: "in no form that is known", 1: "once"}
        counts = (f"{name} {words.get(n, f'{n} times')}" for name, n in held.items())
        return (f"its bytes were searched: the plan holds {', '.join(counts)}",)

    def _install(self, plan: _Plan, job: Job, made: Made, start: float) -> EngineOutcome:
        """Put a plan where the manifest will say."""
        record = replace(plan.record, file=job.file, target=job.target)
        path = self._draft.path / job.file
        atomic.link(plan.path, path)
        made.plans.append(record)
        return replace(
            job.outcome("passed"),
            file=job.file,
            size_bytes=path.stat().st_size,
            seconds=time.perf_counter() - start,
            reused=plan.reused,
            notes=plan.notes,
        )


def _reason(error: TiedExportError) -> str:
    """What failed, why, and what to do: in one line, and the same for all engines it befell."""
    why = error.what if error.got is None else f"{error.what}: {error.got}"
    return why if error.hint is None else f"{why}; {error.hint}"
