"""Prints the SHA-256 of plans, in a process of its own: build_plans.py REQUESTS.pickle."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

from tiedexport.engines import builder_for


def main(requests: Path) -> None:
    """Build what another process asks for."""
    for request in pickle.loads(requests.read_bytes()):
        plan = builder_for(request.target).build(request).plan
        sys.stdout.write(f"{hashlib.sha256(plan).hexdigest()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
