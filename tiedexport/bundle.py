"""The directory on disk that authoring writes and deploying reads: open it, check it, write it."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import numpy as np

from tiedexport.atomic import replacing_directory
from tiedexport.errors import BundleError, UsageError
from tiedexport.manifest import FileRecord, Manifest, decode_manifest, encode_manifest
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiedexport.spec import TensorSpec

T = TypeVar("T")
Check = Literal["hash", "size"]

MANIFEST = "manifest.json"
SAFETENSORS_DTYPES = {"F32": Precision.FP32, "F16": Precision.FP16, "BF16": Precision.BF16}
_MANIFEST_LIMIT_BYTES = 64 << 20


class Bundle:
    """A checked bundle. Arrays it hands out are read-only maps of its files: nothing is copied."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._weights: dict[Precision, dict[str, np.ndarray]] = {}

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    def graph(self, stage: str, precision: Precision) -> Path:
        """Path of the ONNX graph of a stage; its external data lies beside it.

        Raises:
            BundleError: the bundle has no such stage or precision.
        """
        self.manifest.stage(stage)
        return self.path / self._of_precision(self.manifest.graphs, precision)[stage]

    def weights_path(self, precision: Precision) -> Path:
        """Path of the safetensors file that holds every parameter once."""
        return self.path / self._of_precision(self.manifest.weights, precision)

    def weights(self, precision: Precision) -> dict[str, np.ndarray]:
        """Every parameter of a precision by name, as views of one shared read-only memory map.

        Raises:
            BundleError: the bundle does not hold the precision, or a weight that it speaks of.
        """
        if precision not in self._weights:
            path = self.weights_path(precision)
            weights = map_safetensors(path)
            if absent := self.manifest.weight_names(precision) - weights.keys():
                raise BundleError(
                    "weights that the manifest names are not stored",
                    where=path,
                    got=", ".join(sorted(absent)),
                    expected=", ".join(weights),
                )
            self._weights[precision] = weights
        return self._weights[precision]

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        """Tensor name → reference values: inputs in float32, everything computed in float64."""
        where = self.path / self.manifest.golden
        try:
            with where.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                golden = dict(arrays)
        # Damage also makes numpy and zipfile raise TokenError, MemoryError, BadZipFile, ...
        except Exception as error:
            raise BundleError("unreadable golden pairs", where=where, got=str(error)) from error
        for stage in self.manifest.stages:
            for spec in (*stage.inputs, *stage.outputs):
                _refuse_unfit(golden.get(spec.name), spec, where)
        return golden

    def _of_precision(self, table: dict[Precision, T], precision: Precision) -> T:
        if precision not in table:
            raise BundleError(
                "the bundle does not hold this precision",
                where=self.path,
                got=precision,
                expected=", ".join(map(str, table)),
                hint=f"tiedexport build model.pt --precision {','.join([*table, precision])}",
            )
        return table[precision]


def _refuse_unfit(values: np.ndarray | None, spec: TensorSpec, where: Path) -> None:
    if values is None or values.shape[1:] != spec.element_shape or not values.size:
        raise BundleError(
            "the golden pairs do not fit the stages",
            where=where,
            got="nothing of this name" if values is None else f"shape {list(values.shape)}",
            expected=str(spec),
        )


def open_bundle(path: str | Path, check: Check = "hash") -> Bundle:
    """Open a bundle after checking its manifest, names, sizes and (by default) every hash.

    Args:
        path: the bundle's directory.
        check: "hash" reads every file once (about 0.7 s a GiB); "size" is for a host that has
            verified this bundle before.

    Raises:
        BundleError: something is missing, altered, a link, or of a newer schema. Nothing in the
            bundle has been handed to any parser of graphs, weights or engines by then.
    """
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(
            "not a bundle",
            where=path,
            got="no such directory" if not path.exists() else f"no {MANIFEST} in it",
            expected="a directory written by tiedexport build",
            hint=f"tiedexport build model.pt -o {path}",
        )
    if check not in ("hash", "size"):
        raise UsageError("unknown check", got=repr(check), expected='"hash" or "size"')
    _regular_file_size(path, MANIFEST)
    if manifest_path.stat().st_size > _MANIFEST_LIMIT_BYTES:
        raise BundleError("the manifest is too large to be one", where=manifest_path)
    manifest = decode_manifest(manifest_path.read_bytes(), manifest_path)
    for name, record in manifest.files.items():
        _check_file(path, name, record, check)
    return Bundle(path, manifest)


def _check_file(root: Path, name: str, record: FileRecord, check: Check) -> None:
    size_bytes = _regular_file_size(root, name)
    hint = "copy the bundle again, or rebuild it: tiedexport build model.pt"
    if size_bytes != record.size_bytes:
        raise BundleError(
            "a file of the bundle has the wrong size",
            where=root / name,
            got=f"{size_bytes} bytes",
            expected=f"{record.size_bytes} bytes",
            hint=hint,
        )
    if check == "hash" and (digest := file_sha256(root / name)) != record.sha256:
        raise BundleError(
            "a file of the bundle was altered",
            where=root / name,
            got=f"SHA-256 {digest}",
            expected=record.sha256,
            hint=hint,
        )


def _regular_file_size(root: Path, name: str) -> int:
    """Size of a file reached through real directories only: a link could leave the bundle."""
    path = root
    for part in Path(name).parts:
        path = path / part
        try:
            status = path.lstat()
        except OSError as error:
            raise BundleError(
                "a file of the bundle is missing", where=path, got=error.strerror
            ) from error
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise BundleError(
                "a link or special file in the bundle", where=path, expected="a regular file"
            )
    if not stat.S_ISREG(status.st_mode):
        raise BundleError("a directory where a file should be", where=path)
    return status.st_size


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The entries of a safetensors file by name, in file order, and where its data begins.

    The safetensors library validates the header (no overlap, no hole, no overflow) before we
    read the offsets, which its Python interface does not tell.

    Raises:
        BundleError: the file is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = msgspec.json.decode(file.read(header_bytes))
    except (SafetensorError, OSError, msgspec.MsgspecError) as error:
        raise BundleError("unreadable weights", where=path, got=str(error)) from error
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return dict(entries), 8 + header_bytes


def safetensors_layout(path: Path) -> dict[str, tuple[Precision, tuple[int, ...], int, int]]:
    """Name → (precision, shape, absolute offset in bytes, length in bytes), in file order.

    Raises:
        BundleError: the file is no safetensors file, or holds a type other than F32, F16, BF16.
    """
    header, start = safetensors_header(path)
    layout = {}
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS_DTYPES:
            raise BundleError(
                "a weight of an unknown type",
                where=f"{path}: {name}",
                got=entry["dtype"],
                expected=", ".join(SAFETENSORS_DTYPES),
            )
        begin, end = entry["data_offsets"]
        precision = SAFETENSORS_DTYPES[entry["dtype"]]
        layout[name] = (precision, tuple(entry["shape"]), start + begin, end - begin)
    return layout


def map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file as a read-only view of one memory map."""
    layout = safetensors_layout(path)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    return {
        name: data[offset : offset + length].view(precision.dtype).reshape(shape)
        for name, (precision, shape, offset, length) in layout.items()
    }


@contextlib.contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """A directory to write a bundle into; it takes the target's place whole, or not at all.

    Where `target` is a link, it stays one, and what it leads to is replaced.

    Raises:
        UsageError: `target` exists and is no bundle whose manifest is sound, or holds files that
            the manifest does not list, so it is not ours to replace.
    """
    if target.exists():
        _refuse_to_replace_what_is_not_ours(target)
    with replacing_directory(target) as staging:
        yield staging


def _refuse_to_replace_what_is_not_ours(target: Path) -> None:
    manifest = target / MANIFEST
    try:
        ours = decode_manifest(manifest.read_bytes(), manifest).files.keys() | {MANIFEST}
    except (BundleError, OSError) as error:
        raise UsageError(
            "will not replace something that is no bundle",
            where=target,
            got=error.what if isinstance(error, BundleError) else f"no {MANIFEST} in it",
            hint="choose another -o, or remove it yourself",
        ) from error
    found = (path for path in target.rglob("*") if path.is_symlink() or not path.is_dir())
    foreign = sorted({path.relative_to(target).as_posix() for path in found} - ours)
    if foreign:
        raise UsageError(
            "will not replace a bundle with files in it that are not its own",
            where=target,
            got=", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if foreign[5:] else ""),
            hint="move them elsewhere, or choose another -o",
        )


def write_manifest(staging: Path, make: Callable[[dict[str, FileRecord]], Manifest]) -> Manifest:
    """Hash every file in `staging`, let `make` build the manifest around them, and write it."""
    files = {
        file.relative_to(staging).as_posix(): FileRecord(file.stat().st_size, file_sha256(file))
        for file in sorted(staging.rglob("*"))
        if file.is_file()
    }
    manifest = make(files)
    (staging / MANIFEST).write_bytes(encode_manifest(manifest))
    return manifest
