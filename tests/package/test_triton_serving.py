"""Repositories that `tiedexport package` wrote, in the real Triton server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from command_line import tiedexport
from conftest import bound_of, make_checkpoint
from triton_schema import STAGES
from triton_server import needs_triton, triton_server
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import RuntimeFailedError
from tiedexport.export import build
from tiedexport.package.triton_server import load
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triton_server import TritonServer

pytestmark = needs_triton

CALLERS = 16
UNDER_LOAD_S = 60
PROTOCOLS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> list[Bundle]:
    """Two bundles of one model and of weights that have nothing in common."""
    folder = tmp_path_factory.mktemp("trainings")
    opened = []
    for seed in (1, 2):
        checkpoint, place = folder / f"{seed}.pt", folder / f"{seed}.tied"
        model = make_checkpoint("autoencoder", {"widths": [96, 40, 12]}, seed)
        save_checkpoint(checkpoint, model)
        build(checkpoint, place, precision="fp32", target=())
        opened.append(open_bundle(place))
    return opened


@pytest.fixture(scope="module")
def repository(trainings: list[Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line makes of the first of them."""
    folder = tmp_path_factory.mktemp("repository")
    done = packaged(trainings[0], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("server")
    explicit = ("--model-control-mode=explicit", "--load-model=*")
    with triton_server(repository, folder, *explicit) as running:
        yield running


def packaged(bundle: Bundle, repository: Path, *options: str) -> Any:
    arguments = ("--format", "triton", "-o", ".", "--name", "digits", "--instances", "2", *options)
    return tiedexport("package", bundle.path, *arguments, cwd=repository)


class Caller:
    """A client of the models over one protocol; of one thread."""

    def __init__(self, server: TritonServer, protocol: str) -> None:
        self._library = PROTOCOLS[protocol]
        self._client = self._library.InferenceServerClient(getattr(server, protocol))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(
        self, bundle: Bundle, stage: str, x: np.ndarray, version: str = ""
    ) -> tuple[np.ndarray, str]:
        """The answer, and the version of the model that gave it."""
        spec = bundle.manifest.stage(stage)
        given = self._library.InferInput(spec.inputs[0].name, x.shape, np_to_triton_dtype(x.dtype))
        given.set_data_from_numpy(x)
        answer = self._client.infer(f"digits_{stage}", [given], model_version=version)
        response = answer.get_response()
        served = response["model_version"] if isinstance(response, dict) else response.model_version
        return answer.as_numpy(spec.outputs[0].name), served


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stage", STAGES)
def test_golden_outputs_are_within_the_bounds_of_verify(
    server: TritonServer, trainings: list[Bundle], protocol: str, stage: str
) -> None:
    bundle = trainings[0]
    spec = bundle.manifest.stage(stage)
    x = bundle.golden[spec.inputs[0].name].astype(np.float32)
    with Caller(server, protocol) as caller:
        answer, version = caller.ask(bundle, stage, x)
    with open_session(bundle, threads=1) as session:
        bound = bound_of(session, stage, x)
    assert version == "1"
    assert (np.abs(answer - bundle.golden[spec.outputs[0].name]) <= bound).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("stage", "x", "told"),
    [
        ("encoder", np.zeros((2, 95), np.float32), "input.*digits_encoder.*96.*95"),
        ("decoder", np.zeros((2, 96), np.float32), "code.*digits_decoder.*12.*96"),
        ("encoder", np.zeros((2, 96), np.float16), "input.*FP16.*digits_encoder.*FP32"),
        ("autoencoder", np.zeros((65, 96), np.float32), "64.*digits_autoencoder"),
    ],
    ids=["shape", "code-shape", "type", "batch"],
)
def test_bad_shapes_and_types_are_refused_by_name(
    server: TritonServer, trainings: list[Bundle], protocol: str, stage: str, x: Any, told: str
) -> None:
    with (
        Caller(server, protocol) as caller,
        pytest.raises(InferenceServerException, match=rf"(?s){told}"),
    ):
        caller.ask(trainings[0], stage, x)


def test_a_model_that_does_not_load_is_told_in_the_servers_words(server: TritonServer) -> None:
    with pytest.raises(RuntimeFailedError, match="digits_nothing") as error:
        load(f"http://{server.http}", ["digits_nothing", "digits_encoder"])
    assert "explicit" in str(error.value)


@dataclass
class Watched:
    """What callers saw, of whom each thread writes at will: appending and counting are atomic."""

    bundles: list[Bundle]
    rows: np.ndarray
    codes: dict[str, np.ndarray]
    reconstructions: dict[str, np.ndarray]
    wrong: list[str] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def compare(self, stage: str, version: str, answer: np.ndarray, expected: np.ndarray) -> None:
        """An answer of another version than it says is off by thousands of times as much."""
        self.versions.append((stage, version))
        if (off := float(np.abs(answer - expected).max())) > 1e-5:
            self.wrong.append(f"{stage} of version {version}: off by {off}")

    @property
    def inputs(self) -> list[tuple[str, np.ndarray]]:
        """Each stage with a row for it."""
        code = self.codes["1"][:1]
        return [(stage, code if stage == "decoder" else self.rows[:1]) for stage in STAGES]

    def wait_for_all(self, versions: str) -> None:
        """Until every stage has answered in every version."""
        end = time.monotonic() + UNDER_LOAD_S
        while len(set(self.versions)) < len(STAGES) * len(versions):
            assert time.monotonic() < end, Counter(self.versions)
            time.sleep(0.1)

    def call(self, server: TritonServer, protocol: str, seed: int) -> None:
        """Encode, decode with the version that encoded, and reconstruct, until it is over."""
        random = np.random.default_rng(seed)
        with Caller(server, protocol) as caller:
            ask = partial(caller.ask, self.bundles[0])
            while not self.done.is_set():
                rows = random.integers(0, len(self.rows), random.integers(1, 5))
                try:
                    code, version = ask("encoder", self.rows[rows])
                    self.compare("encoder", version, code, self.codes[version][rows])
                    decoded, same = ask("decoder", code, version)
                    self.compare("decoder", same, decoded, self.reconstructions[version][rows])
                    whole, newest = ask("autoencoder", self.rows[rows])
                    self.compare("autoencoder", newest, whole, self.reconstructions[newest][rows])
                except Exception as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")


def watched(bundles: list[Bundle]) -> Watched:
    """What the sessions of this process answer, by version."""
    rows = np.random.default_rng(0).random((64, 96)).astype(np.float32)
    seen = Watched(bundles, rows, {}, {})
    for version, bundle in enumerate(bundles, 1):
        with open_session(bundle, threads=1) as session:
            seen.codes[str(version)] = session.encode(rows)
            seen.reconstructions[str(version)] = session.decode(seen.codes[str(version)])
    return seen


def test_a_version_that_is_loaded_under_load_fails_and_mixes_nothing(
    server: TritonServer, repository: Path, trainings: list[Bundle]
) -> None:
    seen = watched(trainings)
    threads = [
        threading.Thread(target=seen.call, args=(server, protocol, seed))
        for seed, protocol in enumerate(list(PROTOCOLS) * (CALLERS // 2))
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        time.sleep(UNDER_LOAD_S / 2)
        done = packaged(trainings[1], repository, "--server", f"http://{server.http}")
        time.sleep(max(0, start + UNDER_LOAD_S - time.monotonic()))
        seen.wait_for_all("12")
    finally:
        seen.done.set()
        for thread in threads:
            thread.join()
    assert done.returncode == 0, done.stderr
    assert seen.wrong == []
    with Caller(server, "grpc") as caller:
        assert {caller.ask(trainings[0], stage, x)[1] for stage, x in seen.inputs} == {"2"}
