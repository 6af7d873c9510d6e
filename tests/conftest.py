"""Models and bundles that the suites share, each made once a session."""

from __future__ import annotations

import gc
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import drawn_once
import msgspec
import numpy as np
import pytest
import torch
from command_line import tiedexport
from fake_engines import FakeBuilder, only_builder

from tiedexport import native_library, rounding, trt
from tiedexport.bundle import MANIFEST, Bundle, file_sha256, open_bundle
from tiedexport.checkpoint import Checkpoint, save_checkpoint
from tiedexport.export import build
from tiedexport.families import config_from, family_named
from tiedexport.manifest import FileRecord, decode_manifest, encode_manifest
from tiedexport.report import charts
from tiedexport.runtimes import all_runtimes, choose_precision, runtime_named
from tiedexport.session import Session, open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

torch.set_num_threads(1)

needs_rtx = pytest.mark.skipif(
    not trt.availability("tensorrt_rtx").available,
    reason=f"tensorrt_rtx: {trt.availability('tensorrt_rtx').reason}",
)
"""The builder is there; it needs no GPU."""

needs_native = pytest.mark.skipif(
    not runtime_named("native").availability().available,
    reason=f"native: {runtime_named('native').availability().why}",
)
"""The library was built with the package."""

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("autoencoder", {"widths": [20, 13, 7]}),
    "dense-gelu-linear": (
        "autoencoder",
        {"widths": [12, 8, 5], "activation": "gelu", "code": "linear", "output": "linear"},
    ),
    "untied": ("autoencoder", {"widths": [9, 6], "tied": False, "init": "orthogonal"}),
    "conv": ("conv", {"image": [9, 12], "channels": [1, 3, 4], "activation": "tanh"}),
}
"""Small models, at least one of each family: name → family and configuration."""


def _worker_group(nodeid: str) -> str:
    """Tests that one worker has to run: those of a file, and all that share build folders."""
    file = nodeid.partition("::")[0]
    compiles = file.startswith("tests/cpp/") or file == "tests/test_wheel.py"
    return "compiling" if compiles else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What compiles takes longest, so it begins."""
    items.sort(key=lambda item: _worker_group(item.nodeid) != "compiling")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share groups between workers: with pytest 9.2, xdist 3.8 loses marks of groups."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _worker_group(nodeid)

    return Groups(config, log)


def make_checkpoint(family: str, fields: dict[str, Any], seed: int = 0) -> Checkpoint:
    """An untrained model with non-zero biases, and 32 random inputs in [0, 1]."""
    torch.manual_seed(seed)
    chosen = family_named(family)
    config = config_from(chosen, fields)
    module = chosen.module(config)
    state = module.state_dict()
    for name, tensor in state.items():
        if name.endswith("bias"):
            tensor.normal_(0.0, 0.1)
    samples = torch.rand(32, *module.input_shape)
    return Checkpoint(family, config, state, tuple(module.input_shape), samples)


def resign(path: Path, **changes: object) -> None:
    """Give the bundle at `path` an altered manifest whose own digest is right."""
    manifest = decode_manifest((path / MANIFEST).read_bytes(), path)
    (path / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, **changes)))


def sign_files(path: Path) -> None:
    """Make the manifest agree with what the files of the bundle at `path` hold now."""
    names = decode_manifest((path / MANIFEST).read_bytes(), path).files
    files = [path / name for name in names]
    records = [FileRecord(file.stat().st_size, file_sha256(file)) for file in files]
    resign(path, files=dict(zip(names, records, strict=True)))


def contents(folder: Path) -> dict[str, bytes]:
    """Path within a folder → what the file there holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def session_of(bundle: Bundle, runtime: str, precision: Precision | None = None) -> Session:
    """A session with one thread; skips where the runtime cannot run the bundle."""
    chosen, reason = choose_precision(runtime_named(runtime), bundle, precision)
    if chosen is None:
        pytest.skip(f"{runtime}: {reason}")
    return open_session(bundle, runtime=runtime, precision=chosen, threads=1)


def inputs_of(session: Session, stage: str, batch: int, seed: int = 0) -> np.ndarray:
    """Random inputs in [0, 1] of a stage, [batch, ...] in its type."""
    spec = session.bundle.manifest.stage(stage).inputs[0]
    shape = (batch, *spec.element_shape)
    return np.random.default_rng(seed).random(shape).astype(spec.dtype.dtype)


def bound_of(session: Session, stage: str, x: np.ndarray) -> np.ndarray:
    """How far each output of a session's stage may be from float64's."""
    return rounding.forward_bound(
        session.bundle.manifest.stage(stage).layers,
        session.bundle.weights(Precision.FP32),
        x.astype(np.float64),
        precision=session.precision,
        accumulation=runtime_named(session.runtime).accumulation[session.precision],
        io=session.bundle.manifest.io_dtype,
    ).bound


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine as it is without the native library, for this process and those it starts."""
    monkeypatch.setenv(native_library.VARIABLE, "/nowhere")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser; of a module, as its driver keeps an event loop in this thread."""
    if reason := browser.why_there_is_none():
        pytest.skip(reason)
    with browser.launched() as launched:
        yield launched


@pytest.fixture
def quick_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw each chart once a session, not once a test."""
    monkeypatch.setattr(charts, "_converter", drawn_once.Converter)


@pytest.fixture(scope="session")
def quick_export() -> Iterator[None]:
    """Let torch's ONNX exporter compile its 500 operators once a session, not once an export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        compiled = cache(ONNXRegistry.from_torchlib.__func__)
        patch.setattr(ONNXRegistry, "from_torchlib", classmethod(compiled))
        yield


@pytest.fixture(scope="module")
def quick_collection() -> Iterator[None]:
    """For a module that collects garbage often: only its own objects are looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", params=MODELS, ids=str)
def model_name(request: pytest.FixtureRequest) -> str:
    """The name of each model in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model name → its checkpoint file."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {name: folder / f"{name}.pt" for name in MODELS}
    for name, path in paths.items():
        save_checkpoint(path, make_checkpoint(*MODELS[name]))
    return paths


@pytest.fixture(scope="session")
def checkpoint_path(checkpoints: dict[str, Path], model_name: str) -> Path:
    """The checkpoint file of each model in turn."""
    return checkpoints[model_name]


@pytest.fixture(scope="session")
def bundles(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Bundle]:
    """Model name → its bundle in fp32, fp16 and bf16, without engines. Never write into it."""
    folder = tmp_path_factory.mktemp("bundles")
    opened = {}
    for name, path in checkpoints.items():
        build(path, folder / f"{name}.tied", precision="fp32,fp16,bf16", target=())
        opened[name] = open_bundle(folder / f"{name}.tied")
    return opened


@pytest.fixture(scope="session")
def bundle(bundles: dict[str, Bundle], model_name: str) -> Bundle:
    """The bundle of each model in turn. Never write into it."""
    return bundles[model_name]


@pytest.fixture(scope="session")
def dense_bundle(bundles: dict[str, Bundle]) -> Bundle:
    """The bundle of one small tied dense model. Never write into it."""
    return bundles["dense"]


@pytest.fixture
def plain(dense_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of that bundle to write into, without engines."""
    return Path(shutil.copytree(dense_bundle.path, tmp_path / "b.tied"))


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    """A builder of engines that is the only one there is."""
    return only_builder(monkeypatch)


@pytest.fixture(params=[r.name for r in all_runtimes().values() if r.availability().available])
def runtime(request: pytest.FixtureRequest) -> str:
    """Every runtime that can work on this machine."""
    return str(request.param)


@pytest.fixture
def session(dense_bundle: Bundle, runtime: str) -> Iterator[Session]:
    """A session of one small tied dense model in every runtime of this machine."""
    with session_of(dense_bundle, runtime) as opened:
        yield opened


_RECIPE = """
[model]
family = "autoencoder"
widths = [48, 24, 6]

[data]
source = "images.npz"

[training]
epochs = 3
batch_size = 8
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.npz, a recipe, and what train and build made of them."""
    path = tmp_path_factory.mktemp("unseen")
    random = np.random.default_rng(7)
    stripes = np.sin(np.arange(48).reshape(6, 8) * random.uniform(0.1, 1.0, (90, 1, 1)))
    np.savez(path / "images.npz", images=((stripes + 1) * 127).astype(np.uint8))
    (path / "stripes.toml").write_text(_RECIPE)
    for arguments in (
        ("train", "stripes.toml", "-o", "model.pt"),
        ("build", "model.pt", "--target", "none"),
    ):
        done = tiedexport(*arguments, cwd=path)
        assert done.returncode == 0, done.stderr
    return path
