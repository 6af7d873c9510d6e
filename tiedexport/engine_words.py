"""Words for what an engine can be built with; the command line's help loads no more.

All but those for weights are trtexec's.
"""

from __future__ import annotations

from typing import Literal

Weights = Literal["shared", "baked", "one-plan"]
"""As inputs of a plan, inside it, or inside one plan for both directions."""

Profile = tuple[int, int, int]
"""Smallest, typical and largest batch."""

HardwareCompatibility = Literal["none", "ampere+", "sameComputeCapability"]
ProfilingVerbosity = Literal["layer_names_only", "detailed", "none"]

DEFAULT_PROFILE: Profile = (1, 8, 256)
LARGEST_BATCH = 2**31 - 1
OPTIMIZATION_LEVELS = range(6)
MEMORY_POOLS = {"workspace": "WORKSPACE", "tacticSharedMem": "TACTIC_SHARED_MEMORY"}
"""`--memPoolSize`: pool as trtexec names it → MemoryPoolType. The others are those of a DLA."""
