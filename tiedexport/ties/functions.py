"""What torch's functions do to a weight, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_CARRIERS = """
    t T mT H mH adjoint transpose swapaxes swapdims permute movedim moveaxis view view_as reshape
    reshape_as flatten unflatten unsqueeze squeeze expand expand_as contiguous clone detach data
    alias to type type_as float double half bfloat16 cpu cuda requires_grad_ __getitem__ narrow
    select
"""
CARRIERS = frozenset(_CARRIERS.split())
"""Functions whose result is still the weight, seen differently; what consumes it is its use."""

CUTS = frozenset({"detach", "data"})
"""Carriers whose result no gradient flows back through."""

_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "data"})
CASTS = frozenset({"float", "half", "bfloat16"})
"""Methods that narrow to a type."""

_QUESTIONS = """
    size dim ndimension numel nelement stride storage_offset element_size data_ptr get_device
    is_floating_point is_complex is_contiguous untyped_storage register_hook __len__ __repr__
    __format__
"""
QUESTIONS = frozenset(_QUESTIONS.split())
"""Functions that ask about a tensor and do not compute with its elements."""

_EXITS = """
    numpy tolist item __array__ __dlpack__ __float__ __int__ __complex__
"""
EXITS = frozenset(_EXITS.split())
"""Functions that hand out a tensor's elements: what is computed with them torch does not see."""

_WRITERS = """
    __set__ __setitem__ __iadd__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__ __ipow__
    __iand__ __ior__ __ixor__ __ilshift__ __irshift__
"""
WRITERS = frozenset(_WRITERS.split())


def name_of(func: Callable[..., Any]) -> str:
    """`t` for `Tensor.t`, `T` for the getter of `Tensor.T`."""
    name: str = getattr(func, "__name__", type(func).__name__)
    return str(func.__self__.__name__) if is_getter(func) else name  # type: ignore[attr-defined]


def is_getter(func: Callable[..., Any]) -> bool:
    """Whether it reads an attribute: `Tensor.shape.__get__`."""
    return getattr(func, "__name__", "") == "__get__"


def spelled(name: str) -> str:
    """A carrier as it is written: "T", "t()", "[…]"."""
    if name == "__getitem__":
        return "[…]"
    return f".{name}" if name in _ATTRIBUTES else f".{name}()"


def writes(name: str) -> bool:
    """Whether a function writes into its first argument, or sets an attribute of it."""
    if name in WRITERS:
        return True
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
