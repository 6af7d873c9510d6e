"""A build that was killed goes on after the engines that it had finished."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engines import TARGET, FakeBuilder, only_builder

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.engines import EngineRequest
from tiedexport.errors import MissingRuntimeError
from tiedexport.export import build
from tiedexport.spec import Precision

FP16_STAGES = ["encoder.fp16", "decoder.fp16", "autoencoder.fp16"]

KILLED = """
import os, signal, sys
from fake_engines import FakeBuilder, TARGET
from tiedexport import engines
from tiedexport.export import build

bundle, last = sys.argv[1], int(sys.argv[2])
builder = FakeBuilder()
builder.before = lambda r: len(builder.requests) == last and os.kill(os.getpid(), signal.SIGKILL)
engines.all_builders = lambda: (builder,)
build(bundle, target=[TARGET], precision="fp16")
"""


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    return only_builder(monkeypatch)


@pytest.fixture
def path(dense_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle without engines."""
    return Path(shutil.copytree(dense_bundle.path, tmp_path / "b.tied"))


def shelf(path: Path) -> Path:
    return path.with_name(f".{path.name}.plans")


def kill_after(count: int, path: Path) -> None:
    """Let another process build engines for a bundle, and kill it when it has finished some."""
    script = [sys.executable, "-c", KILLED, str(path), str(count)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def interrupt_after(count: int, path: Path, builder: FakeBuilder) -> None:
    """The same by Ctrl-C in this process."""

    def stop(request: EngineRequest) -> None:
        if len(builder.requests) == count:
            raise KeyboardInterrupt

    builder.before = stop
    with pytest.raises(KeyboardInterrupt):
        build(path, target=[TARGET], precision="fp16")
    builder.before = lambda request: None
    assert builder.built == FP16_STAGES[:count]


@pytest.mark.parametrize("count", [0, 2])
def test_finished_plans_survive_a_kill_and_are_taken_by_the_next_call(
    count: int, path: Path, builder: FakeBuilder
):
    before = sorted(p.name for p in path.iterdir())
    kill_after(count, path)
    assert sorted(p.name for p in path.iterdir()) == before
    open_bundle(path)
    result = build(path, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES[count:]
    assert [row.reused for row in result.engines] == [True] * count + [False] * (3 - count)
    assert os.listdir(path.parent) == [path.name]
    assert len(open_bundle(path).manifest.plans) == 3


def test_the_resumed_bundle_is_the_one_that_no_kill_delayed(
    path: Path, builder: FakeBuilder, tmp_path: Path
):
    whole = Path(shutil.copytree(path, tmp_path / "whole" / "b.tied"))
    build(whole, target=[TARGET], precision="fp16")
    kill_after(2, path)
    build(path, target=[TARGET], precision="fp16")
    files = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file()]
    assert files
    for file in files:
        assert (path / file).read_bytes() == (whole / file).read_bytes(), file


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])


@pytest.mark.parametrize("how", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_what_was_half_written_is_built_again(how, suffix: str, path: Path, builder: FakeBuilder):
    interrupt_after(1, path, builder)
    (file,) = shelf(path).glob(f"*{suffix}")
    how(file)
    result = build(path, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES
    assert {row.status for row in result.engines} == {"passed"}
    assert os.listdir(path.parent) == [path.name]


def test_a_plan_under_the_name_of_another_key_is_not_taken(path: Path, builder: FakeBuilder):
    interrupt_after(1, path, builder)
    for file in shelf(path).iterdir():
        file.rename(file.with_stem("0" * 64))
    build(path, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES


def test_force_takes_nothing_from_a_killed_call(path: Path, builder: FakeBuilder):
    interrupt_after(2, path, builder)
    build(path, target=[TARGET], precision="fp16", force=True)
    assert builder.built == FP16_STAGES


def test_an_interrupted_build_is_resumed_too(path: Path, builder: FakeBuilder):
    interrupt_after(2, path, builder)
    assert sorted(os.listdir(path.parent)) == sorted([path.name, shelf(path).name])
    build(path, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES[2:]
    assert os.listdir(path.parent) == [path.name]


def test_an_interruption_before_the_first_engine_leaves_nothing(path: Path, builder: FakeBuilder):
    interrupt_after(0, path, builder)
    assert os.listdir(path.parent) == [path.name]


def test_two_builds_of_one_bundle_at_a_time_do_not_meet(path: Path, builder: FakeBuilder):
    second: list[str] = []

    def build_meanwhile(request: EngineRequest) -> None:
        if request.stage.name == "decoder" and not second:
            second.append("started")
            result = build(path, target=[TARGET], precision="fp16")
            second.extend(row.status for row in result.engines)

    builder.before = build_meanwhile
    result = build(path, target=[TARGET], precision="fp16")
    assert {row.status for row in result.engines} == {*second[1:]} == {"passed"}
    assert len(builder.built) == 6
    assert os.listdir(path.parent) == [path.name]
    assert len(open_bundle(path, check="hash").manifest.plans) == 3


def test_a_build_that_ends_in_an_error_leaves_nothing(path: Path, builder: FakeBuilder):
    builder.refused = {"autoencoder"}
    with pytest.raises(MissingRuntimeError):
        build(path, target=[TARGET], precision="fp16")
    assert os.listdir(path.parent) == [path.name]
    assert not open_bundle(path).manifest.plans
    assert Precision.FP16 in open_bundle(path).manifest.precisions
