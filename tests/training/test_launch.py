"""Processes that are started together, die, and are started again."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import mortal
import pytest
import torch
from command_line import tiedexport
from small_training import SmallTraining, same_state
from torchrun import torchrun

from tiedexport.checkpoint import load_checkpoint
from tiedexport.errors import EXIT_BAD_INPUT, RuntimeFailedError, UsageError
from tiedexport.train import plan
from tiedexport.training.launch import launch

if TYPE_CHECKING:
    from pathlib import Path

# 72 samples to train on: five steps an epoch.
TRAINING = {"epochs": 4, "batch_size": 16, "noise": {"kind": "gaussian", "amount": 0.1}}
KILLED_IN_STEP = 9
"""The fourth of the second epoch."""


@pytest.fixture
def small(tmp_path: Path) -> SmallTraining:
    return SmallTraining(tmp_path, training=dict(TRAINING))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SmallTraining:
    """What two processes train that nobody kills."""
    small = SmallTraining(tmp_path_factory.mktemp("undisturbed"), training=dict(TRAINING))
    launch(("-m", "tiedexport", *command(small)), 2, 0)
    return small


def command(small: SmallTraining, *options: str) -> tuple[str, ...]:
    words = ("train", str(small.recipe()), "-o", str(small.output), "--device", "cpu", "-q")
    return (*words, *options)


def test_two_processes_leave_what_one_does(
    small: SmallTraining, undisturbed: SmallTraining
) -> None:
    one = small.train().record

    two = load_checkpoint(undisturbed.output).training
    assert two is not None
    assert (one.processes, two.processes, two.sharded) == (1, 2, False)
    assert two.test_rmse == pytest.approx(one.test_rmse, rel=1e-5)
    assert two.train_loss_history == pytest.approx(one.train_loss_history, rel=1e-5)
    assert two.validation_rmse_history == pytest.approx(one.validation_rmse_history, rel=1e-5)
    for name, weight in small.state().items():
        torch.testing.assert_close(undisturbed.state()[name], weight)
    assert not undisturbed.resume_file.exists()


def test_a_killed_process_costs_time_and_nothing_else(
    small: SmallTraining, undisturbed: SmallTraining
) -> None:
    words = command(small, "--save-every", "2")
    said = torchrun(2, mortal.__file__, 1, KILLED_IN_STEP, *words, max_restarts=1)

    assert "SIGKILL" in said or "exitcode: -9" in said
    assert same_state(small.state(), undisturbed.state())
    record, whole = (load_checkpoint(one.output).training for one in (small, undisturbed))
    assert record is not None
    assert whole is not None
    assert record.validation_rmse_history == whole.validation_rmse_history
    assert record.train_loss_history == pytest.approx(whole.train_loss_history)
    assert not small.resume_file.exists()


def test_without_restarts_left_the_death_is_told_and_one_process_goes_on(
    small: SmallTraining, undisturbed: SmallTraining
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mortals = (mortal.__file__, "1", str(KILLED_IN_STEP))
    sharded = command(small, "--shard", "--save-every", "1")

    with pytest.raises(RuntimeFailedError, match="SIGKILL") as caught:
        launch((*mortals, *sharded), 2, 0)

    assert caught.value.where == "process 1"
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert list(small.folder.glob("*.shards/*"))

    small.train(resume=True)

    for name, weight in undisturbed.state().items():
        torch.testing.assert_close(small.state()[name], weight)
    assert not small.resume_file.exists()
    assert not list(small.folder.glob("*.shards"))


def test_what_is_refused_is_said_once(small: SmallTraining) -> None:
    small.recipe()
    small.images.write_bytes(b"no images")

    done = tiedexport("train", "recipe.toml", "--nproc", "2", cwd=small.folder)

    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.count("error:") == 1
    assert "images.npz" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_recipe_is_refused_before_processes_are_started(small: SmallTraining) -> None:
    small.training["epochs"] = 0
    small.recipe()

    done = tiedexport("train", "recipe.toml", "--nproc", "1000000", cwd=small.folder)

    assert done.returncode == EXIT_BAD_INPUT
    assert "training.epochs" in done.stderr


def test_torchrun_and_nproc_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")

    with pytest.raises(UsageError, match="leave out --nproc"):
        launch(("-c", ""), 2, 0)


def test_a_plan_says_who_does_what(small: SmallTraining) -> None:
    recipe = small.recipe()

    alone, whole = plan(recipe, small.output), plan(recipe, small.output, processes=3)
    sharded = plan(recipe, small.output, processes=2, shard=True)

    assert "processes:  1\n" in alone
    assert "processes:  3 over gloo, at most 6 rows of a batch, the whole model in each" in whole
    assert "processes:  2 over gloo, at most 8 rows of a batch, a part of the model in" in sharded
    done = tiedexport("train", recipe, "--nproc", "3", "--dry-run", cwd=small.folder)
    assert "processes:  3 over gloo" in done.stdout


def test_one_process_can_be_sharded_too(small: SmallTraining, tmp_path: Path) -> None:
    small.train()
    other = tmp_path / "other.pt"

    record = small.train(other, shard=True).record

    assert record.sharded
    assert same_state(small.state(), small.state(other))
