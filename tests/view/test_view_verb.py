"""`tiedexport view`: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import webbrowser
from typing import TYPE_CHECKING

import pytest
from command_line import tiedexport

from tiedexport import view
from tiedexport.view.server import ViewServer

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle


def test_it_prints_its_address_and_ends_well_when_told(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tiedexport", "view", dense_bundle.path, "--no-browser"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        with urllib.request.urlopen(url) as page:
            assert b"<title>" in page.read()
        process.send_signal(signal.SIGTERM)  # as Ctrl-C, which a shell may have set aside
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "Ctrl-C ends it\n")


def test_it_listens_to_this_machine_only(dense_bundle: Bundle) -> None:
    with view.Sessions(dense_bundle) as sessions, ViewServer(sessions) as server:
        assert server.socket.getsockname() == ("127.0.0.1", server.server_port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", server.server_port), timeout=5)


def test_the_page_is_opened_in_a_browser_unless_told_otherwise(
    dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    said: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)

    def interrupted(_: ViewServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", interrupted)
    view.view(dense_bundle, browser=False, say=said.append)
    assert (len(said), opened) == (1, [])
    view.view(dense_bundle, say=said.append)
    assert opened == said[1:]


def test_a_taken_port_is_refused_with_what_to_do(dense_bundle: Bundle, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = tiedexport("view", dense_bundle.path, "--no-browser", "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert "the port is taken" in done.stderr
    assert f"got:      {port}" in done.stderr
    assert "leave out --port" in done.stderr


@pytest.mark.parametrize("port", ["65536", "-1", "x"])
def test_what_is_no_port_is_refused(dense_bundle: Bundle, tmp_path: Path, port: str) -> None:
    done = tiedexport("view", dense_bundle.path, f"--port={port}", cwd=tmp_path)
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, got in (("nothing.tied", "no such directory"), ("empty", "no manifest.json in it")):
        done = tiedexport("view", name, "--no-browser", cwd=tmp_path)
        assert done.returncode == 4
        assert "not a bundle" in done.stderr
        assert got in done.stderr


def test_a_report_that_is_not_there_is_refused(dense_bundle: Bundle, tmp_path: Path) -> None:
    done = tiedexport("view", dense_bundle.path, "--report", "nothing.html", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such report" in done.stderr
    assert "tiedexport report" in done.stderr


@pytest.mark.parametrize(("title", "own"), [("dense: a report", True), ("other: a report", False)])
def test_the_report_beside_a_bundle_is_taken_if_it_is_the_bundle_s(
    dense_bundle: Bundle, tmp_path: Path, title: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dense_bundle.path, tmp_path / "d.tied")
    (tmp_path / "report.html").write_text(f"<!doctype html><title>{title}</title>")
    reports: list[Path | None] = []

    def interrupted(server: ViewServer) -> None:
        reports.append(server.report)
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", interrupted)
    view.view(tmp_path / "d.tied", browser=False, say=str)
    assert reports == [tmp_path / "report.html" if own else None]
