"""`inspect`: what is in a bundle, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.bundle import Bundle, Check, open_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.manifest import Manifest


def inspect(bundle: Bundle | str | Path, *, check: Check = "hash") -> Manifest:
    """The manifest of a bundle whose files have been checked.

    Raises:
        BundleError: the bundle is damaged.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, check)
    return opened.manifest
