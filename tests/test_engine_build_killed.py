"""A build that was killed goes on after the engines that it had finished."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import contents
from fake_engines import FP16_STAGES, TARGET, FakeBuilder, run_apart

from tiedexport.bundle import open_bundle
from tiedexport.engines import EngineRequest
from tiedexport.errors import MissingRuntimeError
from tiedexport.export import build
from tiedexport.spec import Precision

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


def shelf(path: Path) -> Path:
    return path.with_name(f".{path.name}.plans")


def kill_after(count: int, path: Path) -> None:
    """Let another process build engines for a bundle, and kill it when it has finished some."""
    done = run_apart(KILLED, path, count)
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
    count: int, plain: Path, builder: FakeBuilder
):
    before = sorted(p.name for p in plain.iterdir())
    kill_after(count, plain)
    assert sorted(p.name for p in plain.iterdir()) == before
    open_bundle(plain)
    result = build(plain, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES[count:]
    assert [row.reused for row in result.engines] == [True] * count + [False] * (3 - count)
    assert os.listdir(plain.parent) == [plain.name]
    assert len(open_bundle(plain).manifest.plans) == 3


def test_the_resumed_bundle_is_the_one_that_no_kill_delayed(
    plain: Path, builder: FakeBuilder, tmp_path: Path
):
    whole = Path(shutil.copytree(plain, tmp_path / "whole" / "b.tied"))
    build(whole, target=[TARGET], precision="fp16")
    kill_after(2, plain)
    build(plain, target=[TARGET], precision="fp16")
    assert contents(plain) == contents(whole)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])


@pytest.mark.parametrize("how", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_what_was_half_written_is_built_again(how, suffix: str, plain: Path, builder: FakeBuilder):
    interrupt_after(1, plain, builder)
    (file,) = shelf(plain).glob(f"*{suffix}")
    how(file)
    result = build(plain, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES
    assert {row.status for row in result.engines} == {"passed"}
    assert os.listdir(plain.parent) == [plain.name]


def test_a_plan_under_the_name_of_another_key_is_not_taken(plain: Path, builder: FakeBuilder):
    interrupt_after(1, plain, builder)
    for file in shelf(plain).iterdir():
        file.rename(file.with_stem("0" * 64))
    build(plain, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES


def test_force_takes_nothing_from_a_killed_call(plain: Path, builder: FakeBuilder):
    interrupt_after(2, plain, builder)
    build(plain, target=[TARGET], precision="fp16", force=True)
    assert builder.built == FP16_STAGES


def test_an_interrupted_build_is_resumed_too(plain: Path, builder: FakeBuilder):
    interrupt_after(2, plain, builder)
    assert sorted(os.listdir(plain.parent)) == sorted([plain.name, shelf(plain).name])
    build(plain, target=[TARGET], precision="fp16")
    assert builder.built == FP16_STAGES[2:]
    assert os.listdir(plain.parent) == [plain.name]


def test_an_interruption_before_the_first_engine_leaves_nothing(plain: Path, builder: FakeBuilder):
    interrupt_after(0, plain, builder)
    assert os.listdir(plain.parent) == [plain.name]


def test_two_builds_of_one_bundle_at_a_time_do_not_meet(plain: Path, builder: FakeBuilder):
    second: list[str] = []

    def build_meanwhile(request: EngineRequest) -> None:
        if request.stage.name == "decoder" and not second:
            second.append("started")
            result = build(plain, target=[TARGET], precision="fp16")
            second.extend(row.status for row in result.engines)

    builder.before = build_meanwhile
    result = build(plain, target=[TARGET], precision="fp16")
    assert {row.status for row in result.engines} == {*second[1:]} == {"passed"}
    assert len(builder.built) == 6
    assert os.listdir(plain.parent) == [plain.name]
    assert len(open_bundle(plain, check="hash").manifest.plans) == 3


def test_a_build_that_ends_in_an_error_leaves_nothing(plain: Path, builder: FakeBuilder):
    builder.refused = {"autoencoder"}
    with pytest.raises(MissingRuntimeError):
        build(plain, target=[TARGET], precision="fp16")
    assert os.listdir(plain.parent) == [plain.name]
    assert not open_bundle(plain).manifest.plans
    assert Precision.FP16 in open_bundle(plain).manifest.precisions
