"""What the live page is told of a bundle, and what its runtimes answer."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import session_of
from served import ask, read, request, served

from tiedexport.errors import RuntimeFailedError
from tiedexport.runtimes import all_runtimes
from tiedexport.session import open_session
from tiedexport.spec import Precision
from tiedexport.view import sessions as view_sessions
from tiedexport.view.sessions import Sessions, picture_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.bundle import Bundle
    from tiedexport.session import Session
    from tiedexport.view.server import ViewServer


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle]) -> Iterator[ViewServer]:
    with served(bundles["conv"]) as server:
        yield server


def model_of(server: ViewServer) -> Any:
    return request(server, "GET", "/api/model").json


def test_the_page_is_told_what_the_bundle_is(server: ViewServer, bundles: dict[str, Bundle]):
    model, manifest = model_of(server), bundles["conv"].manifest
    assert model["name"] == manifest.name
    assert model["parameters"] == manifest.parameter_count
    assert model["ties"] == len(manifest.ties) == 2
    assert model["picture"] == {"height": 9, "width": 12, "channels": 1}
    assert model["report"] is False
    golden = bundles["conv"].golden
    np.testing.assert_array_equal(read(model["samples"][1]), golden["input"][1].ravel())
    codes = golden["code"].reshape(len(golden["code"]), -1)
    np.testing.assert_array_equal(read(model["lowest"]), codes.min(0).astype("f4"))
    np.testing.assert_array_equal(read(model["highest"]), codes.max(0).astype("f4"))
    assert sorted(model["by_variance"]) == list(range(codes.shape[1]))
    assert (np.diff(codes.var(0)[model["by_variance"]]) <= 0).all()


def test_every_runtime_has_rows_and_what_cannot_run_says_why(
    server: ViewServer, bundles: dict[str, Bundle]
) -> None:
    model = model_of(server)
    assert {row["runtime"] for row in model["rows"]} == set(all_runtimes())
    for row in model["rows"]:
        runtime = all_runtimes()[row["runtime"]]
        assert bool(row["reason"]) or runtime.availability().available
        assert row["remark"] == runtime.remark
    with open_session(bundles["conv"]) as best:
        first = model["rows"][model["first"]]
        assert (first["runtime"], first["precision"]) == (best.runtime, best.precision)


def test_every_row_answers_what_a_session_does(
    server: ViewServer, bundles: dict[str, Bundle]
) -> None:
    bundle = bundles["conv"]
    x = np.random.default_rng(0).random((1, 9, 12), np.float32)
    ready = [row for row in model_of(server)["rows"] if not row["reason"]]
    assert ready
    for row in ready:
        chosen = {"runtime": row["runtime"], "precision": row["precision"]}
        answer = ask(server, "reconstruct", x, **chosen).json
        assert answer["latency_s"] > 0
        with session_of(bundle, row["runtime"], Precision(row["precision"])) as session:
            shaped = x.reshape(1, *bundle.manifest.stage("encoder").inputs[0].element_shape)
            code, found = session.encode(shaped), session.reconstruct(shaped)
            np.testing.assert_array_equal(read(answer["code"]), code.ravel())
            np.testing.assert_array_equal(read(answer["reconstruction"]), found.ravel())
            decoded = ask(server, "decode", code, **chosen).json
            np.testing.assert_array_equal(
                read(decoded["reconstruction"]), session.decode(code).ravel()
            )


@pytest.mark.parametrize(
    ("runtime", "precision"), [("gpu9000", "fp32"), ("torch", "fp8"), ("torch", ""), ("", "")]
)
def test_an_unknown_runtime_or_precision_is_told_which_there_are(
    server: ViewServer, runtime: str, precision: str
) -> None:
    x = np.zeros(9 * 12, np.float32)
    response = ask(server, "reconstruct", x, runtime=runtime, precision=precision)
    assert response.status == 404
    assert response.json["reason"] == "no such runtime and precision"
    assert "torch in bf16" in response.json["expected"]


def test_a_runtime_that_cannot_run_says_why(server: ViewServer) -> None:
    absent = [row for row in model_of(server)["rows"] if row["reason"]]
    if not absent:
        pytest.skip("this machine runs everything")
    row = {"runtime": absent[0]["runtime"], "precision": absent[0]["precision"] or "fp32"}
    response = ask(server, "reconstruct", np.zeros(9 * 12), **row)
    assert response.status == 503
    assert response.json["got"] == absent[0]["reason"]


class Counted:
    """Opens sessions, slowly, and counts."""

    def __init__(self) -> None:
        self.opened: list[Session] = []

    def __call__(self, *arguments: Any, **options: Any) -> Session:
        threading.Event().wait(0.05)
        self.opened.append(open_session(*arguments, **options))
        return self.opened[-1]


def test_two_clients_at_once_share_one_session(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    monkeypatch.setattr(view_sessions, "open_session", counted)
    inputs = np.random.default_rng(1).random((16, 20), np.float32)
    with served(bundles["dense"]) as server:
        row = {"runtime": "torch", "precision": "fp32"}  # not what "auto" has opened already
        start = threading.Barrier(2)

        def client(own: np.ndarray) -> list[np.ndarray]:
            start.wait()
            answers = [ask(server, "reconstruct", x, **row) for x in own]
            return [read(answer.json["reconstruction"]) for answer in answers]

        with ThreadPoolExecutor(2) as clients:
            found = np.concatenate(list(clients.map(client, np.split(inputs, 2))))
    names = [(session.runtime, str(session.precision)) for session in counted.opened]
    assert names.count(("torch", "fp32")) == 1
    with session_of(bundles["dense"], "torch", Precision.FP32) as session:
        expected = np.concatenate([session.reconstruct(x[None]) for x in inputs])
    np.testing.assert_array_equal(found, expected)


def test_sessions_are_closed_with_the_page(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    monkeypatch.setattr(view_sessions, "open_session", counted)
    with served(bundles["dense"]) as server:
        ask(server, "decode", np.zeros(7), runtime="torch", precision="fp32")
    assert len(counted.opened) == 2
    for session in counted.opened:
        with pytest.raises(Exception, match="the session is closed"):
            session.decode(np.zeros((1, 7), np.float32))


def test_a_runtime_that_fails_is_heard_and_the_next_request_is_served(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = [RuntimeFailedError("it broke", got="own words"), KeyError("x")]

    def decode(self: Sessions, _: Any) -> Any:
        raise faults.pop(0)

    monkeypatch.setattr(Sessions, "decode", decode)
    with served(bundles["dense"]) as server:
        failed = ask(server, "decode", np.zeros(7))
        assert (failed.status, failed.json["reason"]) == (503, "it broke")
        assert failed.json["got"] == "own words"
        internal = ask(server, "decode", np.zeros(7))
        assert internal.status == 500
        assert "fault of tiedexport" in internal.json["reason"]
        assert request(server, "GET", "/").status == 200


@pytest.mark.parametrize(
    ("shape", "picture"),
    [((28, 24), (28, 24, 1)), ((1, 9, 12), (9, 12, 1)), ((3, 8, 6), (8, 6, 3)), ((20,), None),
     ((2, 8, 6), None), ((1, 20), None), ((3, 1, 5), None), ((2, 3, 4, 5), None)],
)  # fmt: skip
def test_what_is_a_picture(shape: tuple[int, ...], picture: tuple[int, ...] | None) -> None:
    found = picture_of(shape)
    assert (found and (found.height, found.width, found.channels)) == picture


def test_the_page_names_only_files_that_are_served(server: ViewServer) -> None:
    seen, left = set(), ["/"]
    while left:
        path = left.pop()
        response = request(server, "GET", path)
        assert response.status == 200, path
        seen.add(path)
        named = re.findall(r'(?:href|src)="([\w.-]+)"|from "\./([\w.-]+)"', response.body.decode())
        left += [p for p in (f"/{a or b}" for a, b in named) if p not in {*seen, "/report"}]
    static = {path for path in server.pages if not path.startswith("/api/")}
    assert seen == static
