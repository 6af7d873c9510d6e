"""Finished plans beside a bundle in the making: a build that was killed goes on after them."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from tiedexport import atomic
from tiedexport.manifest import PlanRecord

if TYPE_CHECKING:
    from collections.abc import Iterator


class Finished(Struct, frozen=True):
    """A plan that is whole, and what is known of it."""

    record: PlanRecord
    sha256: str
    notes: tuple[str, ...] = ()


class PlanShelf:
    """A folder of plans by key. What was half written when a build was killed is not taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Where the plan of this key lies, if it is here."""
        return self._folder / f"{key}.plan"

    def put(self, plan: bytes | memoryview, record: PlanRecord, notes: tuple[str, ...]) -> None:
        """Keep a plan, synced to disk before its record says that it is whole.

        Raises:
            OSError: it cannot be written.
        """
        finished = Finished(record, hashlib.sha256(plan).hexdigest(), notes)
        with atomic.replacing(self.path(record.key)) as file:
            file.write(plan)
        atomic.write(self._record(record.key), msgspec.json.encode(finished))

    def take(self, key: str) -> Finished | None:
        """The plan of this key, if a build has finished it and its bytes are as they were."""
        try:
            finished = msgspec.json.decode(self._record(key).read_bytes(), type=Finished)
            with self.path(key).open("rb") as plan:
                whole = hashlib.file_digest(plan, "sha256").hexdigest() == finished.sha256
        except (OSError, msgspec.MsgspecError):
            return None
        return finished if whole and finished.record.key == key else None

    def _record(self, key: str) -> Path:
        return self._folder / f"{key}.json"


@contextlib.contextmanager
def shelf_beside(target: Path) -> Iterator[PlanShelf]:
    """The shelf of a bundle; it goes when the block ends, unless a kill or Ctrl-C ends it.

    A build of the same bundle at the same time gets a shelf of its own, which nobody finds again.
    """
    target = target.resolve()
    folder = target.with_name(f".{target.name}.plans")
    with contextlib.ExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.locked(target.parent):
            folder.mkdir(exist_ok=True)
            alone = stack.enter_context(atomic.locked(folder, wait=False))
        if not alone:
            own = tempfile.TemporaryDirectory(prefix=folder.name, dir=target.parent)
            folder = Path(stack.enter_context(own))
        try:
            yield PlanShelf(folder)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing is on it
            raise
        shutil.rmtree(folder, ignore_errors=True)
