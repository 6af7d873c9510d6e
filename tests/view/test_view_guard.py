"""What the server of the live page lets through, and what it says to the rest."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest
from served import Response, ask, request, served, wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.view.server import ViewServer


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle]) -> Iterator[ViewServer]:
    with served(bundles["dense"]) as server:
        yield server


def refused(response: Response, status: int) -> str:
    """The reason of a refusal, which has the headers of every answer."""
    assert response.status == status, response.body
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Connection"] == "close"
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    return str(response.json["reason"])


@pytest.mark.parametrize(
    "host",
    [None, "", "localhost:{port}", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}",
     "127.0.0.1:{port}.evil.example", "127.0.0.1:{port}\n127.0.0.1:{port}"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_name_of_this_machine_is_refused(
    server: ViewServer, method: str, host: str | None
) -> None:
    given = host and host.format(port=server.server_port)
    response = request(server, method, "/", headers={"Host": given})
    assert refused(response, 421) == "this server answers under one name only"
    assert server.host in response.json["expected"]


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:1",
     "https://{host}", "http://{host}/", "http://{host}\nhttp://evil.example"],
)  # fmt: skip
def test_a_page_of_another_origin_may_not_ask(server: ViewServer, origin: str | None) -> None:
    headers = {"Origin": origin and origin.format(host=server.host)}
    response = request(server, "POST", "/api/decode", b"{}", headers)
    assert refused(response, 403) == "only a page of this server may ask"


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/json2", None])
def test_only_json_is_read(server: ViewServer, kind: str | None) -> None:
    response = request(server, "POST", "/api/decode", b"{}", {"Content-Type": kind})
    assert refused(response, 415) == "not JSON"


def test_a_body_of_more_than_a_sample_is_not_read(server: ViewServer) -> None:
    sample = wire(np.zeros(20, np.float32))
    longest = json.dumps({"runtime": "x" * 30, "precision": "fp32", "values": sample})
    assert len(longest) < server.limit_bytes < 2000
    too_long = str(server.limit_bytes + 1)
    response = request(server, "POST", "/api/decode", b"{}", {"Content-Length": too_long})
    assert "more than a sample" in refused(response, 413)
    assert response.json["expected"] == f"{server.limit_bytes} at most"


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": None}, {"Content-Length": "-1"}, {"Content-Length": "x"},
     {"Content-Length": "²"}, {"Content-Length": None, "Transfer-Encoding": "chunked"},
     {"Transfer-Encoding": "chunked"}],
    ids=str,
)  # fmt: skip
def test_a_body_of_unknown_length_is_not_read(
    server: ViewServer, headers: dict[str, str | None]
) -> None:
    response = request(server, "POST", "/api/decode", b"{}", headers)
    assert refused(response, 411) == "a request of unknown length"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_unknown(server: ViewServer, method: str) -> None:
    assert "Unsupported method" in refused(request(server, method, "/"), 501)


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [("GET", "/api/reconstruct", "POST"), ("POST", "/", "GET"), ("POST", "/api/model", "GET")],
)
def test_a_page_is_there_for_its_own_method_only(
    server: ViewServer, method: str, path: str, right: str
) -> None:
    response = request(server, method, path, b"{}" if method == "POST" else None)
    assert refused(response, 405) == "not by this method"
    assert response.json["expected"] == right


@pytest.mark.parametrize(
    "path",
    ["/index.html", "/server.py", "/../server.py", "/%2e%2e/server.py", "/static/page.js",
     "/etc/passwd", "//etc/passwd", "/api", "/api/model/", "/report", "/favicon.ico"],
)  # fmt: skip
def test_no_path_leads_to_the_disk(server: ViewServer, path: str) -> None:
    assert refused(request(server, "GET", path), 404) == "there is no such page"
    assert refused(request(server, "POST", path, b"{}"), 404) == "there is no such page"


def test_a_line_that_is_no_request_is_refused_in_json(server: ViewServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
        client.sendall(b"GET / x HTTP/1.1\r\n\r\n")
        with client.makefile("rb") as file:
            answer = file.read()
    assert json.loads(answer.rpartition(b"\r\n")[2])["reason"].startswith("Bad request")


@pytest.mark.parametrize(
    ("body", "got"),
    [(b"", "truncated"), (b"{", "truncated"), (b"[]", "Expected `object`"), (b"\xff", "malformed"),
     (b'{"runtime": "a", "precision": "b"}', "missing required field `values`"),
     (b'{"runtime": "a", "precision": "b", "values": "", "path": "/"}', "unknown field `path`"),
     (b'{"runtime": "a", "precision": "b", "values": "\xc3\xa4"}', "base64"),
     (b'{"runtime": "a", "precision": "b", "values": [1]}', "Expected `bytes`")],
    ids=str,
)  # fmt: skip
def test_a_body_that_is_no_request_is_told_what_one_is(
    server: ViewServer, body: bytes, got: str
) -> None:
    response = request(server, "POST", "/api/decode", body)
    assert refused(response, 400) == "not a request of this page"
    assert got.lower() in response.json["got"].lower()
    assert "float32" in response.json["expected"]


@pytest.mark.parametrize(("verb", "right"), [("reconstruct", 20), ("decode", 7)])
def test_an_array_of_another_length_is_refused(server: ViewServer, verb: str, right: int) -> None:
    for count in (0, right - 1, right + 1):
        response = ask(server, verb, np.zeros(count, np.float32))
        assert refused(response, 400) == "the array does not fit the stage"
        assert response.json["expected"] == f"{right} numbers in float32, {4 * right} bytes"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(server: ViewServer, value: float) -> None:
    array = np.zeros(7, np.float32)
    array[3] = value
    response = ask(server, "decode", array)
    assert "NaN, infinity" in refused(response, 400)
    assert response.json["got"] == "1 of 7 numbers"


def test_every_answer_tells_the_browser_to_load_nothing_else(server: ViewServer) -> None:
    for response in (request(server, "GET", "/"), ask(server, "decode", np.zeros(7))):
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in response.headers


def test_a_report_is_served_in_a_sandbox(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("<title>dense</title>")
    with served(bundles["dense"], path) as server:
        assert request(server, "GET", "/api/model").json["report"] is True
        response = request(server, "GET", "/report")
        assert response.body == path.read_bytes()
        (policy,) = response.headers.get_all("Content-Security-Policy")
        assert "sandbox" in policy
        assert "allow-same-origin" not in policy
        assert "default-src 'none'" in policy
        path.unlink()
        assert refused(request(server, "GET", "/report"), 404) == "the report is gone"
