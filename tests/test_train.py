"""Training reaches what it should and leaves what it promises."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from small_training import CONV, DENSE, SmallTraining, same_state

from tiedexport.checkpoint import load_checkpoint
from tiedexport.errors import DataError, MissingRuntimeError, RecipeError, UsageError
from tiedexport.progress import Progress
from tiedexport.recipe import load_recipe
from tiedexport.results import TrainResult, to_json
from tiedexport.train import plan, summary
from tiedexport.training.baselines import pca_rmse
from tiedexport.training.samples import Batch
from tiedexport.training.trainer import Trainer, rmse


@pytest.fixture
def small(tmp_path: Path) -> SmallTraining:
    return SmallTraining(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallTraining, TrainResult]:
    """One finished training that several tests look at."""
    small = SmallTraining(tmp_path_factory.mktemp("finished"))
    small.training |= {"epochs": 12, "learning_rate": 0.01}
    return small, small.train()


@pytest.mark.parametrize("model", [DENSE, CONV, DENSE | {"tied": False}], ids=str)
@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_every_family_learns_by_the_same_loop(
    small: SmallTraining, model: dict[str, Any], loss: str
) -> None:
    small.model = model | {"code": "linear"}
    small.training |= {"epochs": 40, "batch_size": 8, "learning_rate": 0.02, "loss": loss}

    record = small.train().record

    samples = small.samples()
    of_the_mean_image = float(samples.std(dim=0, correction=0).square().mean().sqrt())
    module = load_checkpoint(small.output).module()
    assert rmse(module, samples) < 0.5 * of_the_mean_image
    assert record.test_rmse < of_the_mean_image
    assert record.train_loss_history[-1] < record.train_loss_history[0]


def test_the_record_says_what_the_checkpoint_does(
    finished: tuple[SmallTraining, TrainResult],
) -> None:
    small, result = finished
    record, checkpoint = result.record, load_checkpoint(small.output)
    images = np.load(small.images)["images"].astype(np.float32)
    order = np.random.Generator(np.random.PCG64(0)).permutation(90)
    validation, test = (
        torch.from_numpy(images[order[part]]).reshape(-1, 16)
        for part in (slice(72, 82), slice(82, 90))
    )

    assert checkpoint.training == record
    assert record.recipe == load_recipe(small.recipe()).to_tables()
    assert record.test_rmse == rmse(checkpoint.module(), test)
    assert record.validation_rmse == rmse(checkpoint.module(), validation)
    assert record.validation_rmse == min(record.validation_rmse_history)
    assert record.validation_rmse_history[record.best_epoch - 1] == record.validation_rmse
    assert len(record.train_loss_history) == record.epochs == 12
    assert torch.equal(checkpoint.samples, test)
    assert checkpoint.sample_shape == (4, 4)
    assert b"NaN" not in to_json(result)


def test_the_untied_twin_is_counted_and_trains_two_weights(
    small: SmallTraining, finished: tuple[SmallTraining, TrainResult]
) -> None:
    tied = finished[1].record
    small.model = DENSE | {"tied": False}
    twin = small.train().record

    assert tied.parameters == 16 * 10 + 10 * 4 + 10 + 4 + 16 + 10
    assert tied.untied_parameters == tied.parameters + 16 * 10 + 10 * 4
    assert twin.parameters == twin.untied_parameters == tied.untied_parameters
    state = small.state()
    assert not torch.equal(state["layers.0.weight"], state["layers.0.decoder_weight"])


def test_a_linear_code_on_pca_is_the_best_linear_model() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 6)).astype(np.float32)
    centred = samples - samples.mean(0)
    singular_values = np.linalg.svd(centred.astype(np.float64), compute_uv=False)

    expected = np.sqrt(np.square(singular_values[2:]).sum() / samples.size)
    assert pca_rmse(samples, samples, 2) == pytest.approx(expected, rel=1e-5)
    assert pca_rmse(samples, samples, 99) == pytest.approx(0, abs=1e-5)


def test_pictures_and_tensorboard_events_can_be_read(
    finished: tuple[SmallTraining, TrainResult],
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    small, result = finished
    folder = small.folder / "model.training"

    assert result.pictures == (str(folder / "curves.png"), str(folder / "reconstructions.png"))
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in result.pictures)
    events = accumulator.EventAccumulator(str(folder)).Reload()
    losses = [event.value for event in events.Scalars("loss/train")]
    assert losses == pytest.approx(result.record.train_loss_history)
    errors = [event.value for event in events.Scalars("rmse/validation")]
    assert errors == pytest.approx(result.record.validation_rmse_history)
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates == sorted(rates, reverse=True)
    assert len(events.Images("originals and reconstructions")) == 1


def test_training_anew_keeps_the_checkpoint_that_was_there(small: SmallTraining) -> None:
    small.train()
    for seed in (1, 2):
        before = small.output.read_bytes()
        stream = io.StringIO()
        small.train(seed=seed, progress=Progress(stream=stream))

        assert (small.folder / "model.pt.previous").read_bytes() == before
        assert f"{small.output}.previous from now on" in stream.getvalue()
        assert small.output.read_bytes() != before


def test_a_linked_checkpoint_stays_a_link(small: SmallTraining) -> None:
    target = small.folder / "elsewhere" / "model.pt"
    small.train(target)
    small.output.symlink_to(target)

    small.train(seed=1)

    assert small.output.is_symlink()
    assert load_checkpoint(target).training != load_checkpoint(f"{target}.previous").training


def test_training_again_leaves_one_event_file(small: SmallTraining) -> None:
    small.train()
    small.train(epochs=2)

    assert len(list(small.folder.glob("model.training/events.*"))) == 1


def test_the_summary_names_rmse_pca_and_the_untied_twin(
    finished: tuple[SmallTraining, TrainResult],
) -> None:
    result = finished[1]
    text = summary(result)

    assert f"{result.record.test_rmse:.4f}" in text
    assert f"{result.record.pca_test_rmse:.4f}" in text
    assert f"{result.record.untied_parameters:,}" in text


@pytest.mark.parametrize(("ratio", "advised"), [(1.33, False), (2.0, False), (2.5, True)])
def test_only_a_model_far_worse_than_pca_comes_with_advice(
    finished: tuple[SmallTraining, TrainResult], ratio: float, advised: bool
) -> None:
    result = finished[1]
    record = msgspec.structs.replace(result.record, pca_test_rmse=0.25, test_rmse=0.25 * ratio)

    text = summary(msgspec.structs.replace(result, record=record))

    assert ("worse than PCA" in text) is advised
    assert ("now 5 steps an epoch" in text) is advised


def test_a_plan_trains_and_writes_nothing(small: SmallTraining) -> None:
    recipe = small.recipe()
    before = sorted(small.folder.iterdir())

    text = plan(recipe, small.output, epochs=7)

    assert "7 epochs of 5 on" in text
    assert "72 to train on, 10 to validate, 8 to test" in text
    assert "model.pt.resume" in text
    assert sorted(small.folder.iterdir()) == before


def test_patience_ends_a_training_that_no_longer_improves_and_the_best_weights_are_kept(
    small: SmallTraining,
) -> None:
    small.training |= {"epochs": 200, "learning_rate": 0.3, "schedule": "constant", "patience": 3}
    stream = io.StringIO()

    record = small.train(progress=Progress(stream=stream)).record

    history = record.validation_rmse_history
    assert record.epochs == len(history) == record.best_epoch + 3 < 200
    assert min(history[-3:]) >= history[record.best_epoch - 1] == min(history)
    small.train(small.folder / "best.pt", epochs=record.best_epoch)
    assert same_state(small.state(), small.state(small.folder / "best.pt"))
    assert "stopped early" in stream.getvalue()


# What is refused before anything is trained.


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ({"family": "autoencoder", "widths": [784, 20, 4]}, "widths = [16, 20, 4]"),
        ({"family": "conv", "image": [28, 28], "channels": [1, 3]}, "image = [4, 4]"),
        ({"family": "conv", "image": [4, 4], "channels": [3, 6]}, "channels = [1, 6]"),
    ],
    ids=["widths", "image", "channels"],
)
def test_a_model_that_does_not_fit_the_data_is_told_what_to_write(
    small: SmallTraining, model: dict[str, Any], change: str
) -> None:
    small.model = model

    with pytest.raises(RecipeError, match="does not take samples of this shape") as caught:
        small.train()

    assert caught.value.hint == f"in [model] write {change}"
    assert not small.output.exists()


@pytest.mark.parametrize("shape", [(16,), (1, 4, 4), (4, 4)], ids=str)
@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
def test_samples_are_reshaped_where_the_elements_are_the_same(
    small: SmallTraining, model: dict[str, Any], shape: tuple[int, ...]
) -> None:
    small.model = model
    np.save(small.folder / "other.npy", np.load(small.images)["images"].reshape(90, *shape))

    small.train(epochs=1, data=small.folder / "other.npy")

    checkpoint = load_checkpoint(small.output)
    assert checkpoint.sample_shape == shape
    assert checkpoint.samples.shape[1:] == checkpoint.module().input_shape


def test_flat_samples_of_another_size_are_no_images(small: SmallTraining) -> None:
    small.model = CONV
    np.save(small.folder / "flat.npy", np.zeros((90, 9)))

    with pytest.raises(RecipeError) as caught:
        small.train(data=small.folder / "flat.npy")

    assert "give images" in str(caught.value)


def test_a_training_that_diverges_names_epoch_and_learning_rate(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def explode(trainer: Trainer, batch: Batch, number: int, *rest: Any) -> torch.Tensor:
        if number == 2 * trainer.steps_per_epoch:
            for parameter in trainer.module.parameters():
                parameter.detach().mul_(1e15)
        return step(trainer, batch, number, *rest)

    monkeypatch.setattr(Trainer, "step", explode)
    small.training |= {"learning_rate": 0.01, "schedule": "constant"}
    with pytest.raises(RecipeError, match="diverged") as caught:
        small.train()

    assert "training.learning_rate" in str(caught.value)
    assert "in epoch 3, with a learning rate of 0.01" in str(caught.value)
    assert caught.value.hint == "set a lower one, for example learning_rate = 0.001"
    assert load_checkpoint(small.output).training is None


def test_missing_data_is_an_error_before_training(small: SmallTraining) -> None:
    with pytest.raises(DataError):
        small.train(data=small.folder / "absent.npy")


def test_a_folder_is_no_checkpoint(small: SmallTraining) -> None:
    with pytest.raises(UsageError) as caught:
        small.train(small.folder)

    assert str(small.folder / "model.pt") in str(caught.value)


def test_an_unknown_device_is_a_usage_error(small: SmallTraining) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        plan(small.recipe(), small.output, device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_no_silent_fallback(small: SmallTraining) -> None:
    with pytest.raises(MissingRuntimeError, match="sees no GPU"):
        plan(small.recipe(), small.output, device="cuda")
