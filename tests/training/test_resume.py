"""A training that was stopped goes on as if it never had been."""

from __future__ import annotations

import copy
import io
import random
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_training import CONV, DENSE, Interrupted, SmallTraining, same_state

from tiedexport.checkpoint import load_checkpoint, load_safely, save_atomically
from tiedexport.errors import CheckpointError, UsageError
from tiedexport.progress import Progress
from tiedexport.train import plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small(tmp_path: Path) -> SmallTraining:
    return SmallTraining(tmp_path)


@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
@pytest.mark.parametrize("noise", ["none", {"kind": "masking", "amount": 0.2}], ids=str)
def test_after_an_interrupt_the_command_to_go_on_is_named_and_works(
    small: SmallTraining, model: dict[str, Any], noise: Any
) -> None:
    small.model = model
    small.training |= {"noise": noise}
    whole = small.train(small.folder / "whole.pt", seed=3).record
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        small.train(progress=Interrupted(13, stream), seed=3)
    assert f"-o {small.output} --resume --seed 3" in stream.getvalue()
    assert load_checkpoint(small.output).training is None

    resumed = small.train(resume=True, seed=3).record

    assert resumed.train_loss_history == whole.train_loss_history
    assert resumed.validation_rmse_history == whole.validation_rmse_history
    assert resumed.test_rmse == whole.test_rmse
    assert same_state(small.state(), small.state(small.folder / "whole.pt"))
    assert not small.resume_file.exists()


def test_an_interrupt_in_the_first_epoch_leaves_nothing_to_go_on_from(small: SmallTraining) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        small.train(progress=Interrupted(2, stream))

    assert "before anything was saved" in stream.getvalue()
    assert not small.resume_file.exists()


KILLED = textwrap.dedent("""
    import os, signal, sys
    import torch
    torch.set_num_threads(1)
    from tiedexport.progress import Progress
    from tiedexport.train import train

    recipe, output, function, calls = sys.argv[1:]
    left = int(calls)

    def kill_in(owner, name):
        original = getattr(owner, name)
        def counted(*arguments, **keywords):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)
        setattr(owner, name, counted)

    if function == "step":
        from tiedexport.training.trainer import Trainer
        kill_in(Trainer, "step")
    else:
        kill_in(os, function)
    train(recipe, output, device="cpu", resume=True, progress=Progress(quiet=True))
""")


def test_a_killed_training_goes_on_to_bit_identical_weights(small: SmallTraining) -> None:
    small.training |= {"epochs": 9, "noise": {"kind": "gaussian", "amount": 0.1}}
    whole = small.train(small.folder / "whole.pt").record
    # Within an epoch; then before a file is synced, be it a checkpoint or a resume file.
    for function, calls in (("step", random.randint(6, 20)), ("fsync", random.randint(1, 8))):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, small.recipe(), small.output, function, str(calls)],
            check=False,
            capture_output=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert load_checkpoint(small.output).training is None
        assert small.resume_file.exists()

    resumed = small.train(resume=True).record

    assert resumed.train_loss_history == whole.train_loss_history
    assert resumed.validation_rmse_history == whole.validation_rmse_history
    assert (resumed.test_rmse, resumed.best_epoch) == (whole.test_rmse, whole.best_epoch)
    assert same_state(small.state(), small.state(small.folder / "whole.pt"))


def interrupted(small: SmallTraining) -> str:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        small.train(progress=Interrupted(7, stream))
    assert small.resume_file.exists()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("table", "change", "place"),
    [
        ("model", {"code": "linear"}, "model.code = activated"),
        ("training", {"learning_rate": 0.5}, "training.learning_rate = 0.001"),
        ("training", {"epochs": 5}, "training.epochs = 4"),
        ("training", {"seed": 1}, "training.seed = 0"),
    ],
)
def test_another_recipe_does_not_go_on_with_it(
    small: SmallTraining, table: str, change: dict[str, Any], place: str
) -> None:
    interrupted(small)
    getattr(small, table).update(change)
    before = small.resume_file.read_bytes()

    with pytest.raises(UsageError, match="another one") as caught:
        small.train(resume=True)

    assert place in str(caught.value)
    assert small.resume_file.read_bytes() == before


def test_changed_data_does_not_go_on_with_it(small: SmallTraining) -> None:
    interrupted(small)
    np.savez(small.images, images=np.zeros((90, 4, 4)))

    with pytest.raises(UsageError, match=r"data\.sha256"):
        small.train(resume=True)


@pytest.mark.parametrize("dry_run", [False, True], ids=["train", "plan"])
def test_starting_anew_does_not_overwrite_an_unfinished_training(
    small: SmallTraining, dry_run: bool
) -> None:
    interrupted(small)
    before = {path: path.read_bytes() for path in (small.output, small.resume_file)}

    with pytest.raises(UsageError, match="unfinished training is there") as caught:
        plan(small.recipe(), small.output) if dry_run else small.train()

    assert "--resume" in str(caught.value.hint)
    assert f"rm {small.resume_file}" in str(caught.value.hint)
    assert {path: path.read_bytes() for path in before} == before


def test_after_giving_up_an_unfinished_training_the_finished_one_before_it_is_still_there(
    small: SmallTraining,
) -> None:
    small.train()
    finished = small.output.read_bytes()
    interrupted(small)
    small.resume_file.unlink()

    small.train(seed=1)

    assert (small.folder / "model.pt.previous").read_bytes() == finished


def test_a_finished_training_says_so_and_is_not_trained_again(small: SmallTraining) -> None:
    first = small.train()
    before = small.output.read_bytes()
    stream = io.StringIO()

    again = small.train(resume=True, progress=Progress(stream=stream))

    assert (again.record, again.pictures) == (first.record, first.pictures)
    assert "finished already" in stream.getvalue()
    assert small.output.read_bytes() == before


def test_with_nothing_to_go_on_from_it_starts_anew_and_says_so(small: SmallTraining) -> None:
    stream = io.StringIO()

    small.train(resume=True, progress=Progress(stream=stream))

    assert "starting anew" in stream.getvalue()
    assert small.output.exists()


def test_a_plan_says_where_it_would_start(small: SmallTraining) -> None:
    interrupted(small)

    assert "from the state in" in plan(small.recipe(), small.output, resume=True)
    small.resume_file.unlink()
    assert "becomes" in plan(small.recipe(), small.output)
    small.output.unlink()
    assert "starts:     from the beginning\n" in plan(small.recipe(), small.output)


@pytest.mark.parametrize("missing", ["identity", "trainer", "history", "format"])
def test_a_resume_file_that_lacks_something_is_refused(small: SmallTraining, missing: str) -> None:
    interrupted(small)
    payload = copy.deepcopy(load_safely(small.resume_file))
    del payload[missing]
    save_atomically(small.resume_file, payload)

    with pytest.raises(CheckpointError) as caught:
        small.train(resume=True)

    assert f"rm {small.resume_file}" in str(caught.value)


@pytest.mark.parametrize("left", [0, 10, -100])
def test_a_resume_file_that_was_cut_is_refused(small: SmallTraining, left: int) -> None:
    interrupted(small)
    small.resume_file.write_bytes(small.resume_file.read_bytes()[:left])

    with pytest.raises(CheckpointError, match="resume file cannot be read") as caught:
        small.train(resume=True)

    assert f"rm {small.resume_file}" in str(caught.value.hint)
