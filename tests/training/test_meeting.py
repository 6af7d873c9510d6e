"""Processes find those who are there now, whatever earlier ones have left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from tiedexport.training import group


def met(store: HashStore, processes: int) -> str:
    """The name on which so many agree, who come in the reverse order of their ranks."""
    with ThreadPoolExecutor(processes) as threads:
        ranks = reversed(range(processes))
        names = {*threads.map(lambda rank: group._meeting(store, rank, processes), ranks)}
    (name,) = names
    return name


def test_who_meets_again_does_not_meet_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a failure waits so long.
    monkeypatch.setattr(group, "_PATIENCE_S", 60.0)
    store = HashStore()
    store.set_timeout(timedelta(seconds=60))
    # Of those who died before they met: another host's agent need not know of them.
    for rank in (1, 2):
        store.set(f"tiedexport/call/{rank}", "dead")

    names = [met(store, processes) for processes in (3, 3, 2, 1)]

    assert len(set(names)) == 4
