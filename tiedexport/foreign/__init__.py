"""Models that were made elsewhere, brought into the form of a checkpoint.

`checkpoint` tells what it was given by content and leaves the rest to the file of that kind:
`module` reads live modules and `torch.export` programs, `state_dict` reads bare weights.
"""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

from torch import Tensor, nn

from tiedexport import live
from tiedexport.checkpoint import FORMAT, load_checkpoint, load_safely
from tiedexport.errors import UsageError
from tiedexport.foreign.brought import Asked, Brought


def checkpoint(model: str | Path | nn.Module, asked: Asked) -> Brought:
    """Read a model of any kind that `build` takes.

    Raises:
        UsageError: it is of another kind than the arguments, or nothing of that name exists.
        BadInputError: it cannot be read, or is no chain of layers.
    """
    if isinstance(model, nn.Module):
        return _from_module(model, type(model).__name__, asked)
    if live.is_reference(str(model)) and not Path(model).exists():
        return _from_module(live.load_module(str(model)), str(model), asked)
    path = Path(model)
    if path.suffix.lower() == ".onnx" and path.is_file():
        raise _of_onnx(path)
    if _is_program(path):
        from tiedexport.foreign import module

        _refuse(asked, "a torch.export program", "family", "settings", "input_shape")
        return module.from_program(path, asked)
    if path.suffix == ".safetensors" or _is_bare(path, asked):
        from tiedexport.foreign import state_dict

        _refuse(asked, "a state dict", "input_shape")
        return state_dict.from_file(path, asked)
    _refuse(asked, "a checkpoint of tiedexport", "family", "settings", "input_shape", "samples")
    loaded = load_checkpoint(path)
    unfinished = "of no finished training, so the bundle cannot tell of one"
    return Brought(loaded, () if loaded.training else (unfinished,))


def _from_module(model: nn.Module, name: str, asked: Asked) -> Brought:
    from tiedexport.foreign import module

    _refuse(asked, "a live module", "family", "settings")
    return module.from_module(model, name, asked)


def _of_onnx(path: Path) -> UsageError:
    quoted = shlex.quote(str(path))
    return UsageError(
        "an ONNX file is built already",
        where=path,
        got="a graph",
        expected="what it was exported from: a checkpoint, a state dict, a .pt2 or "
        "package.module:factory",
        hint=f"tiedexport retie {quoted} -o out stores each of its weights once",
    )


def _is_program(path: Path) -> bool:
    """Whether `torch.export.save` wrote it, or its name says so: torch refuses it in its words."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # no archive, or a damaged one: zipfile lets decoding errors through
        names = []
    return path.suffix == ".pt2" or any(name.endswith("archive_format") for name in names)


def _is_bare(path: Path, asked: Asked) -> bool:
    content = load_safely(path)
    holds_tensors = any(isinstance(value, Tensor | dict) for value in content.values())
    return content.get("format") != FORMAT and (holds_tensors or asked.family is not None)


def _refuse(asked: Asked, kind: str, *names: str) -> None:
    options = {"settings": "--set", "input_shape": "--input-shape"}
    for name in names:
        if getattr(asked, name):
            raise UsageError(
                f"{kind} tells this itself",
                got=options.get(name, f"--{name}"),
                hint="leave it out",
            )
