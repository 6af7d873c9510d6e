"""What `audit`, `retie` and the proofs on live modules report."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from tiedexport.results import RESULT_SCHEMA, Environment

StageName = Literal[
    "Python parameters",
    "checkpoint",
    "ONNX files",
    "ONNX Runtime's optimised graph",
    "process memory",
    "engine plan",
    "device memory",
]
STAGE_NAMES: tuple[StageName, ...] = StageName.__args__  # type: ignore[attr-defined]
"""In the order in which a weight travels."""

StageStatus = Literal["one copy", "copies", "no tie", "not proven", "not run"]


class StoredCopy(Struct, frozen=True):
    """One physical copy of a tied weight.

    Attributes:
        name: of the initializer, parameter or binding.
        file: where its bytes lie, or "memory".
        offset: of its first byte in that file; None where there is no such thing.
        form: "original", or how it follows from the original: "same", "transposed", "cast",
            "cast and transposed", "permuted (…)".
        uses: the nodes, layers or modules that read it.
        scope: subgraph or function that it stands in; "" at the top.
    """

    name: str
    file: str
    offset: int | None
    size_bytes: int
    dtype: str
    shape: tuple[int, ...]
    form: str = "original"
    uses: tuple[str, ...] = ()
    scope: str = ""


class TiedWeight(Struct, frozen=True):
    """A weight that is used or stored more than once, with every physical copy of it."""

    name: str
    copies: tuple[StoredCopy, ...]
    needed_bytes: int
    stored_bytes: int

    @property
    def uses(self) -> tuple[str, ...]:
        """Every use of every copy."""
        return tuple(use for copy in self.copies for use in copy.uses)


class Stage(Struct, frozen=True):
    """One row of the audit's table: what a weight costs at this point of its way.

    Attributes:
        subject: which file, runtime or setting was looked at.
        needed_bytes, stored_bytes: of all weights together, tied or not.
        reason: why it did not run, or what the figures leave open.
        counts: whether it decides the verdict; rows for comparison do not.
    """

    name: StageName
    status: StageStatus
    subject: str = ""
    reason: str = ""
    ties: tuple[TiedWeight, ...] = ()
    needed_bytes: int = 0
    stored_bytes: int = 0
    counts: bool = True


class Finding(Struct, frozen=True):
    """A mistake in how a live module ties its weights.

    Attributes:
        kind: e.g. "parameter of a transpose", "lost by deepcopy".
        where: the parameters, and file and line where they are known.
        consequence: what goes or will go wrong in training or export.
        instead: the line to write.
        breaks_now: the tie is broken already; otherwise a later call would break it.
    """

    kind: str
    where: str
    consequence: str
    instead: str
    breaks_now: bool = True


class AuditResult(Struct, frozen=True):
    """How many physical copies of each tied weight there are, stage by stage."""

    things: tuple[str, ...]
    stages: tuple[Stage, ...]
    environment: Environment
    seconds: float
    findings: tuple[Finding, ...] = ()
    schema: int = RESULT_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether a stage that counts stores a tie more than once, or a tie is broken."""
        copies = any(stage.counts and stage.status == "copies" for stage in self.stages)
        return copies or any(finding.breaks_now for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether something was measured, all that counts could tell, and every tie holds."""
        ran = {stage.status for stage in self.stages if stage.counts} - {"not run"}
        return bool(ran) and "not proven" not in ran and not self.failed


class Mend(Struct, frozen=True):
    """One stored tensor that gave way to another.

    Attributes:
        kept, removed: "file: name", and " in " the subgraph or function behind it.
        form: how the removed one followed from the kept one.
        how: what stands in its place: "shared", "Transpose", "Gemm transB", "Cast", ….
        saved_bytes: what it took.
        difference: the largest difference of an element; above 0 only where it was accepted.
    """

    kept: str
    removed: str
    form: str
    how: str
    saved_bytes: int
    difference: float = 0.0


class Left(Struct, frozen=True):
    """A copy that stays, and why."""

    kept: str
    copy: str
    form: str
    reason: str


class RetieResult(Struct, frozen=True):
    """What `retie` mended, and the proof.

    Attributes:
        proof: "bit for bit"; "within bound", a rounding-level change within the derived bound;
            "not proven", nothing could run the graphs; "failed", the outputs differ by more.
        proof_detail: on which inputs and runtime, or why not.
        proposals: near-equal weights found with `atol`; applied only where accepted.
        outputs: the written files; none where nothing was written.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    mends: tuple[Mend, ...]
    left: tuple[Left, ...]
    proposals: tuple[Mend, ...]
    proof: Literal["bit for bit", "within bound", "not proven", "failed"]
    proof_detail: str
    bytes_before: int
    bytes_after: int
    environment: Environment
    seconds: float
    schema: int = RESULT_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether the outputs were compared and differ by more than their bound."""
        return self.proof == "failed"

    @property
    def passed(self) -> bool:
        """Whether the result is proven."""
        return self.proof in ("bit for bit", "within bound")


class PathGradient(Struct, frozen=True):
    """One use of a shared weight in a forward pass, and what flows back through it.

    Attributes:
        use: e.g. "linear(…, weight) in decoder".
        norm: Frobenius norm of the gradient through this use alone; 0 where it is cut.
    """

    use: str
    norm: float


class TieProof(Struct, frozen=True):
    """The proof that one weight of a live module is tied, in float64.

    Attributes:
        names: every parameter name that leads to the weight.
        paths: its uses in a forward pass; a tie has at least two.
        sum_error: |gradient - sum of the paths' gradients| over the gradient's norm.
        gradcheck_error: |autograd - central difference| in random directions, relative.
        optimizer_entries: how many Parameters an optimizer would hold for it; 1 in a tie.
        moves_together: one step of the optimizer changes what every use sees alike.
        reason: why it is no tie; "" where it is.
    """

    names: tuple[str, ...]
    paths: tuple[PathGradient, ...]
    sum_error: float
    gradcheck_error: float
    optimizer_entries: int
    moves_together: bool
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether the tie is proven."""
        return not self.reason
