"""`bench --server` against the real Triton server, and against what is no server of the bundle."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import jsonschema
import msgspec
import numpy as np
import pytest
from command_line import tiedexport
from conftest import make_checkpoint
from triton_server import needs_triton, triton_server

from tiedexport import reporting, triton_client
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import BadInputError, MissingRuntimeError, UsageError
from tiedexport.export import build
from tiedexport.open_loop import Answer, Reply, open_loop
from tiedexport.package import package
from tiedexport.results import to_json
from tiedexport.results.kinds import read_result
from tiedexport.results.server import ServerResult
from tiedexport.served_stage import target
from tiedexport.server_bench import precise_loop, server_bench
from tiedexport.session import Session, open_session
from tiedexport.spec import Precision
from tiedexport.triton_client import Question, RequestFailedError, ServedModel, TritonClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triton_server import TritonServer

QUICK = ("--concurrency", 2, "--duration", 0.1)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> list[Bundle]:
    """Two bundles of one name and model, of weights that have nothing in common."""
    opened = []
    for seed in (1, 2):
        place = tmp_path_factory.mktemp(f"seed{seed}") / "served.tied"
        checkpoint = place.with_suffix(".pt")
        save_checkpoint(checkpoint, make_checkpoint("autoencoder", {"widths": [20, 13, 7]}, seed))
        build(checkpoint, place, precision="fp32,fp16", target=())
        opened.append(open_bundle(place))
    return opened


@pytest.fixture(scope="module")
def server(
    trainings: list[Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """One that serves the first of them, in half precision."""
    repository = tmp_path_factory.mktemp("repository")
    package(trainings[0], repository, runtime="native", precision="fp16")
    with triton_server(repository, tmp_path_factory.mktemp("server")) as running:
        yield running


@needs_triton
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_is_measured_beside_this_process(
    server: TritonServer, trainings: list[Bundle], protocol: str, tmp_path: Path
) -> None:
    url = f"{protocol}://{getattr(server, protocol)}"
    options = ("--server", url, *QUICK, "--rate", "100,200", "--stage", "encode", "--batch", "1,3")
    done = tiedexport("bench", trainings[0].path, *options, "--json", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    schema = tiedexport("bench", "--server", url, "--json-schema", cwd=tmp_path)
    jsonschema.validate(
        msgspec.json.decode((tmp_path / "r.json").read_bytes()), msgspec.json.decode(schema.stdout)
    )
    found = read_result(tmp_path / "r.json")
    assert isinstance(found, ServerResult)
    assert found.server.startswith("triton 2.")
    assert found.models == {"encoder": "served_encoder"}
    assert [(r.batch, r.loop, r.callers, r.offered_per_s) for r in found.rows] == [
        (batch, *load)
        for batch in (1, 3)
        for load in (("closed", 1, None), ("closed", 2, None), ("open", 0, 100), ("open", 0, 200))
    ]
    for row in found.rows:
        assert (row.status, row.failed, row.different) == ("passed", 0, 0), row.reason
        assert row.requests >= 100
        assert row.versions == ("1",)
        assert row.runtime == f"triton over {protocol}"
        assert row.throughput_per_s == pytest.approx(row.achieved_per_s * row.batch)
    assert {(row.runtime, row.batch, row.callers) for row in found.loads} == {
        ("native", batch, callers) for batch in (1, 3) for callers in (1, 2)
    }
    assert "encoder, batch 3: latency from the scheduled moment" in done.stdout
    assert "PASSED" in done.stdout


@needs_triton
def test_another_bundle_of_the_same_shapes_is_refused(
    server: TritonServer, trainings: list[Bundle]
) -> None:
    with pytest.raises(BadInputError, match="answers are not those of this bundle"):
        server_bench(trainings[1], f"http://{server.http}", callers=1, duration_s=0.1)


def test_a_model_of_other_shapes_is_refused(trainings: list[Bundle]) -> None:
    stage = trainings[0].manifest.stage("decoder")
    outputs = {"reconstruction": ("FP32", (-1, 20))}
    served = ServedModel("m_decoder", ("1",), {"code": ("FP16", (-1, 7))}, outputs)
    with pytest.raises(BadInputError, match="not of this bundle") as caught:
        asyncio.run(target(trainings[0], stage, 1, _InProcess(None), served, "triton 2.51.0"))
    assert "got:      code: FP16[-1, 7]\n  expected: code: FP32[-1, 7]" in str(caught.value)


@needs_triton
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_that_is_not_served_is_named_with_those_that_are(
    server: TritonServer, trainings: list[Bundle], protocol: str
) -> None:
    with pytest.raises(UsageError, match="no such model") as caught:
        server_bench(trainings[0], f"{protocol}://{getattr(server, protocol)}", model="other")
    assert "other_autoencoder" in str(caught.value)
    assert "served_autoencoder, served_decoder, served_encoder" in str(caught.value)


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_a_precision_that_a_server_does_not_tell_is_found_by_its_answers(
    trainings: list[Bundle], kind: str
) -> None:
    bundle, precision = trainings[0], Precision(kind)
    stage = bundle.manifest.stage("encoder")
    tensors = {spec.name: ("FP32", (-1, *spec.element_shape)) for spec in stage.inputs}
    outputs = {spec.name: ("FP32", (-1, *spec.element_shape)) for spec in stage.outputs}
    served = ServedModel("m_encoder", ("1",), tensors, outputs)
    with open_session(bundle, runtime="reference", precision=precision) as session:
        client = _InProcess(session)
        found = asyncio.run(target(bundle, stage, 2, client, served, "triton 2.51.0"))
        assert found.row.precision == precision
        client.off = 0.5
        with pytest.raises(BadInputError, match="not those of this bundle"):
            asyncio.run(target(bundle, stage, 2, client, served, "triton 2.51.0"))


class _InProcess:
    """What a client of a server would answer, by a session."""

    url, protocol, off = "http://h", "http", 0.0

    def __init__(self, session: Session | None) -> None:
        self._session = session

    def question(self, model: str, feeds: dict[str, np.ndarray], output: str) -> Question:
        (x,) = feeds.values()
        return Question(model, [x], [], output)

    async def ask(self, question: Question) -> tuple[np.ndarray, str]:
        return self._session.encode(question.inputs[0]) + self.off, "1"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_server_is_told(dense_bundle: Bundle, protocol: str) -> None:
    with socket.socket() as held:  # bound and not listening: nobody else gets it
        held.bind(("127.0.0.1", 0))
        with pytest.raises(MissingRuntimeError, match="no inference server answers"):
            server_bench(dense_bundle, f"{protocol}://127.0.0.1:{held.getsockname()[1]}")


def test_a_queue_of_more_requests_than_select_can_watch_does_not_end_the_load() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as silent:

        async def run() -> list[Answer]:
            async with TritonClient(f"http://127.0.0.1:{silent.getsockname()[1]}") as client:
                question = client.question("m", {"x": np.zeros((1, 4), np.float32)}, "y")

                async def ask(number: int) -> Reply:
                    with pytest.raises(RequestFailedError) as caught:
                        await client.ask(question)
                    return Reply(0.0, "failed", why=str(caught.value.got))

                asyncio.get_running_loop().call_later(1.0, silent.close)
                return await open_loop(ask, np.zeros(1200))

        with asyncio.Runner(loop_factory=precise_loop) as runner:
            answers = runner.run(run())
    assert len(answers) == 1200
    assert not any("open files" in one.why for one in answers)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_that_never_answers_is_waited_for_only_so_long(
    dense_bundle: Bundle, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_client, "_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{protocol}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MissingRuntimeError, match="no inference server answers"):
            server_bench(dense_bundle, url)


def test_a_server_of_the_protocol_alone_needs_not_tell_what_triton_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}

    async def told(self: TritonClient, question: str, *about: str) -> dict[str, object]:
        if question != "get_model_metadata" or about != ("m",):
            raise RequestFailedError("the server failed a request", got="404")
        return {"versions": ["1"], "inputs": [tensor], "outputs": [tensor]}

    monkeypatch.setattr(TritonClient, "_told", told)
    client = TritonClient("http://h")
    tensors = {"x": ("FP32", (-1, 4))}
    assert asyncio.run(client.model("m")) == ServedModel("m", ("1",), tensors, tensors)
    with pytest.raises(UsageError, match="no such model") as caught:
        asyncio.run(client.model("other"))
    assert "other: 404" in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "localhost"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a server"):
        TritonClient(url)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"callers": 0}, "number of callers"),
        ({"rates": (5.0, 0.0)}, "rates must be positive"),
        ({"rates": (float("inf"),)}, "rates must be positive"),
        ({"duration_s": 0.0}, "duration must be positive"),
        ({"rates": (1e9,)}, "more requests than one client"),
        ({"arrivals": "bursts"}, "no such arrivals"),
        ({"batch": (0,)}, "batch sizes must be positive"),
    ],
)
def test_arguments_out_of_range_are_refused(
    dense_bundle: Bundle, wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        server_bench(dense_bundle, "http://127.0.0.1:1", **wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--server", "http://h", "--cold"), "--cold does not go with --server"),
        (("--server", "http://h", "--suite"), "--server does not go with --suite"),
        (("--server", "http://h", "-o", "x"), "--output does not go with --server"),
        (("--rate", "5"), "--rate goes with --server"),
        (("--model", "m"), "--model goes with --server"),
        (("--server", "http://h", "--rate", "many"), "no comma-separated list of numbers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    dense_bundle: Bundle, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    done = tiedexport("bench", dense_bundle.path, *options, cwd=tmp_path)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    done = tiedexport("bench", "--server", "http://h", cwd=tmp_path)
    assert "Missing argument 'NAME.TIED'" in done.stderr


@needs_triton
def test_the_report_shows_server_and_process_side_by_side(
    server: TritonServer, trainings: list[Bundle], tmp_path: Path, quick_charts: None
) -> None:
    found = server_bench(
        trainings[0], f"grpc://{server.grpc}", callers=2, duration_s=0.1, rates=(100,)
    )
    (tmp_path / "server.json").write_bytes(to_json(found))
    page = reporting.write(trainings[0].path, [tmp_path / "server.json"], tmp_path / "r.html")
    told = page.with_suffix(".md").read_text("utf-8")
    assert "## The server" in told
    assert "triton over grpc fp16; here: native fp16, without a server" in told
    for chart in ("latency", "throughput", "offered"):
        assert f"server-autoencoder-1-{chart}" in told
    assert f"--server grpc://{server.grpc} --concurrency 2" in told
    assert "--rate 100" in told
    other = msgspec.structs.replace(found, weights_sha256={"fp16": "0" * 64})
    (tmp_path / "other.json").write_bytes(to_json(other))
    with pytest.raises(BadInputError, match="of another bundle") as caught:
        reporting.write(trainings[0].path, [tmp_path / "other.json"], tmp_path / "r.html")
    assert "bench --server URL" in str(caught.value)
