"""Bytes that the parameters need against bytes that a bundle stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiedexport.bundle import MANIFEST, safetensors_layout
from tiedexport.report.tables import size

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.spec import Precision

SURPLUS_RATIO = 0.02
SURPLUS_BYTES = 64 << 10
"""What graphs and headers may add to the parameters: 2 %, or 64 KiB where that is more."""


@dataclass(frozen=True)
class Storage:
    """One precision's account.

    Attributes:
        needed_bytes: every parameter once.
        tensor_bytes: what the weights file holds.
        stored_bytes: the weights file with its header, and every graph that points into it.
        one_copy_a_use_bytes: what the weights would take if each use of a tie had its own copy.
        missing: tied weights that the weights file does not hold.
    """

    precision: Precision
    needed_bytes: int
    tensor_bytes: int
    stored_bytes: int
    one_copy_a_use_bytes: int
    missing: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Stored over needed bytes."""
        return self.stored_bytes / self.needed_bytes

    @property
    def holds(self) -> bool:
        """Whether the weights file is every parameter once, and the rest has no room for more."""
        allowed_bytes = max(SURPLUS_RATIO * self.needed_bytes, SURPLUS_BYTES)
        exact = not self.missing and self.tensor_bytes == self.needed_bytes
        return exact and self.stored_bytes - self.needed_bytes <= allowed_bytes


def storage(bundle: Bundle) -> list[Storage]:
    """The account of every precision, from the manifest and the layout of the weights file.

    Raises:
        BundleError: a weights file is unreadable.
    """
    manifest = bundle.manifest
    accounts = []
    for precision, weights in manifest.weights.items():
        layout = safetensors_layout(bundle.path / weights)
        needed = manifest.parameter_count * precision.itemsize
        files = {weights, *manifest.graphs.get(precision, {}).values()}
        extra_uses = sum(
            layout[tie.weight][3] * (len(tie.uses) - 1)
            for tie in manifest.ties
            if tie.weight in layout
        )
        accounts.append(
            Storage(
                precision=precision,
                needed_bytes=needed,
                tensor_bytes=sum(length for *_, length in layout.values()),
                stored_bytes=sum(manifest.files[name].size_bytes for name in files),
                one_copy_a_use_bytes=needed + extra_uses,
                missing=tuple(t.weight for t in manifest.ties if t.weight not in layout),
            )
        )
    return accounts


def bundle_size(bundle: Bundle) -> str:
    """Size of every file, the manifest included, and what part of it engines are."""
    files = bundle.manifest.files
    total_bytes = sum(file.size_bytes for file in files.values())
    total_bytes += (bundle.path / MANIFEST).stat().st_size
    engine_bytes = sum(files[name].size_bytes for name in bundle.manifest.engine_files)
    engines = f"{size(engine_bytes)} of it engines" if engine_bytes else "no engines among it"
    return f"{size(total_bytes)}, {engines}"
