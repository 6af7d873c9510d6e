"""TensorRT's exceptions and logged errors → ours, with the next step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiedexport.errors import RuntimeFailedError, TiedExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport import trt

_DRIVER = "CUDA driver version is insufficient"


@contextmanager
def translated(handle: trt.Handle, where: str, weights: str) -> Iterator[None]:
    """Raise what TensorRT raises and logs meanwhile as one error of ours.

    Args:
        handle: the package that is called.
        where: the engine that it is about.
        weights: "shared", "baked" or "one-plan", for the next step.

    Raises:
        RuntimeFailedError: parser or builder refused, in the library's own words.
    """
    with handle.errors() as logged:
        try:
            yield
        except TiedExportError:  # some of which are ValueErrors
            raise
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            words = "; ".join(
                dict.fromkeys([str(error) or type(error).__name__, *_reasons(logged)])
            )
            raise RuntimeFailedError(
                f"{handle.package} {handle.version} cannot build this engine",
                where=where,
                got=words,
                hint=_next_step(words, weights),
            ) from error


def _reasons(logged: list[str]) -> list[str]:
    """What was logged, without the missing driver where something else is wrong.

    Without a driver, TensorRT-RTX adds that complaint to every failure. It is the reason where a
    call of CUDA failed, or where nothing else was logged.
    """
    others = [words for words in logged if _DRIVER not in words]
    return others if others and not any("CUDA" in words for words in others) else logged


def _next_step(words: str, weights: str) -> str:
    if "workspace" in words:
        return "give the builder more: --memPoolSize workspace:1024"
    if any(word in words for word in ("OutOfMemory", "out of memory", "MemoryError")):
        return "try a smaller --maxShapes, or a machine with more memory"
    if weights == "shared":
        return "try --weights baked, or another --precision for this target"
    return "try another --precision"
