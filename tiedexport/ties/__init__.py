"""Ties of live modules: proofs that they hold, and the mistakes that break them.

`check` proves each tie, `assert_tied` does so in a test, and `findings` names mistakes and says
what to write instead. All three work on copies: the module is not run, moved or changed.
"""

from __future__ import annotations

from tiedexport.ties.mistakes import findings
from tiedexport.ties.proof import assert_tied, check

__all__ = ["assert_tied", "check", "findings"]
