"""A recipe is refused where it is wrong, by file and field, before anything is trained."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiedexport.errors import EXIT_BAD_INPUT, RecipeError, UsageError
from tiedexport.recipe import DataSection, Noise, load_recipe
from tiedexport.spec import Precision

MODELS = Path(__file__).parents[1] / "models"
VALID = """
[model]
family = "autoencoder"
widths = [16, 8, 4]

[data]
source = "digits.npz"
train = 40
held_back = 20

[training]
epochs = 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def refused(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "widths"),
    [("digits", [784, 784, 392, 196]), ("hinton2006", [784, 1000, 500, 250, 30])],
)
def test_the_recipes_that_come_along_are_valid(name: str, widths: list[int]) -> None:
    recipe = load_recipe(MODELS / f"{name}.toml")

    assert recipe.to_tables()["model"]["widths"] == widths
    assert recipe.config.tied
    assert (recipe.data.train, recipe.data.held_back) == (5000, 5000)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VALID))

    assert recipe.training.optimizer == "adam"
    assert recipe.training.noise == "none"
    assert recipe.training.patience == 0
    assert recipe.build.precisions == (Precision.FP32, Precision.FP16)
    assert recipe.build.targets == ()


def test_every_field_can_be_given(tmp_path: Path) -> None:
    text = """
    [model]
    family = "conv"
    image = [8, 8]
    channels = [1, 4]
    output = "linear"
    [data]
    source = "sklearn-digits"
    seed = 3
    [training]
    epochs = 5
    batch_size = 7
    learning_rate = 0.01
    optimizer = "adamw"
    weight_decay = 0.1
    schedule = "constant"
    loss = "mse"
    noise = { kind = "gaussian", amount = 0.2 }
    patience = 4
    seed = 9
    [build]
    precisions = ["fp32", "bf16"]
    targets = ["rtx:sm89"]
    """
    recipe = load_recipe(write(tmp_path, text))

    assert recipe.training.noise == Noise("gaussian", 0.2)
    given_tables, tables = tomllib.loads(text), recipe.to_tables()
    assert all(given_tables[name].items() <= tables[name].items() for name in given_tables)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("epochs = 3", "epochs = 0", "training.epochs"),
        ("epochs = 3", 'epochs = "3"', "training.epochs"),
        ("epochs = 3", "", "training.epochs"),
        ("epochs = 3", "epochs = 3\nbatch_size = -1", "training.batch_size"),
        ("epochs = 3", "epochs = 3\nlearning_rate = 0.0", "training.learning_rate"),
        ("epochs = 3", "epochs = 3\nlearning_rate = nan", "training.learning_rate"),
        ("epochs = 3", "epochs = 3\nlearning_rate = inf", "training.learning_rate"),
        ("epochs = 3", "epochs = 3\nweight_decay = -0.1", "training.weight_decay"),
        ("epochs = 3", 'epochs = 3\nschedule = "step"', "training.schedule"),
        ("epochs = 3", 'epochs = 3\nloss = "l1"', "training.loss"),
        ("epochs = 3", 'epochs = 3\nnoise = "masking"', "training.noise"),
        ("epochs = 3", 'epochs = 3\nnoise = {kind = "salt", amount = 0.1}', "training.noise"),
        ("epochs = 3", 'epochs = 3\nnoise = {kind = "masking", amount = 1}', "training.noise"),
        ("epochs = 3", 'epochs = 3\nnoise = {kind = "masking", p = 1}', "training.noise"),
        ("epochs = 3", "epochs = 3\npatience = -1", "training.patience"),
        ("epochs = 3", "epochs = 3\nseed = -1", "training.seed"),
        ("epochs = 3", 'epochs = 3\n[build]\nprecisions = ["fp8"]', "build.precisions"),
        ("train = 40", "train = 0", "data.train"),
        ("held_back = 20", "held_back = 1", "data.held_back"),
        ('source = "digits.npz"', "", "data.source"),
        ('source = "digits.npz"', "source = 5", "data.source"),
        ('family = "autoencoder"', 'family = "vae"', "model.family"),
        ("widths = [16, 8, 4]", "widths = [16]", "model.widths"),
        ("widths = [16, 8, 4]", "widths = [16, 0]", "model.widths"),
        ("widths = [16, 8, 4]", 'widths = [16, "8"]', "model.widths"),
        ("widths = [16, 8, 4]", "", "model.widths"),
        ("widths = [16, 8, 4]", "widths = [16, 8]\ntied = 1", "model.tied"),
        ("[training]", "training = 3\n[train]", "[train]"),
        ("[data]", "[date]", "[date]"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert old in VALID

    assert place in refused(write(tmp_path, VALID.replace(old, new)))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("epoch = 3", "epochs"), ("epochs = 3\nlearn_rate = 1.0", "learning_rate")],
)
def test_an_unknown_field_has_its_neighbour_suggested(
    tmp_path: Path, wrong: str, near: str
) -> None:
    message = refused(write(tmp_path, VALID.replace("epochs = 3", wrong)))

    assert f"did you mean {near}?" in message


def test_the_choices_of_a_field_are_listed(tmp_path: Path) -> None:
    message = refused(write(tmp_path, VALID + 'optimizer = "sgd"\n'))

    assert "'sgd'" in message
    assert "'adam', 'adamw'" in message


def test_cross_entropy_of_a_linear_output_is_a_contradiction(tmp_path: Path) -> None:
    text = VALID.replace("[data]", 'output = "linear"\n[data]')

    assert "loss" in refused(write(tmp_path, text))
    assert load_recipe(write(tmp_path, text + 'loss = "mse"\n')).training.loss == "mse"


def test_an_impossible_stack_of_convolutions_is_refused(tmp_path: Path) -> None:
    text = VALID.replace('"autoencoder"', '"conv"').replace(
        "widths = [16, 8, 4]", "image = [4, 4]\nchannels = [1, 2]\nkernel = 7\npadding = 0"
    )

    assert "the image is smaller than the kernel" in refused(write(tmp_path, text))


@pytest.mark.parametrize("table", ["model", "data", "training"])
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    blocks = VALID.strip().split("\n\n")
    text = "\n".join(block for block in blocks if not block.startswith(f"[{table}]"))

    assert f"[{table}]" in refused(write(tmp_path, text))


def test_an_empty_recipe_has_no_table(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "# later\n"))

    assert "got:      no table at all" in message
    assert "[model]" in message


@pytest.mark.parametrize("width", [10**18, 10**19])
def test_a_model_whose_size_cannot_be_counted_is_refused(tmp_path: Path, width: int) -> None:
    text = VALID.replace("[16, 8, 4]", f"[16, {width}]")

    assert "too large" in refused(write(tmp_path, text))


def test_a_table_that_is_a_value_is_refused(tmp_path: Path) -> None:
    assert "build" in refused(write(tmp_path, "build = 3\n" + VALID))


def test_a_missing_file_says_which_recipes_there_are(tmp_path: Path) -> None:
    assert "models/digits.toml" in refused(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"[model", b"\xff\xfe[model]", b"a = 1\na = 2\n"])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)

    assert "no valid TOML" in refused(path)


@given(epochs=st.integers(1, 10**6), seed=st.integers(0, 2**63 - 1))
def test_epochs_and_seed_can_be_changed_and_nothing_else_changes(epochs: int, seed: int) -> None:
    recipe = load_recipe(MODELS / "digits.toml")
    expected = recipe.to_tables()
    expected["training"] |= {"epochs": epochs, "seed": seed}

    assert recipe.with_changes(epochs=epochs, seed=seed).to_tables() == expected


def test_other_data_is_split_as_the_loader_does() -> None:
    recipe = load_recipe(MODELS / "digits.toml")

    assert recipe.with_changes(data="mine.npz").data == DataSection("mine.npz")
    assert recipe.with_changes(data="synthetic-digits").data == recipe.data


@pytest.mark.parametrize("change", [{"epochs": 0}, {"seed": -1}, {"seed": 2**63}])
def test_a_change_out_of_range_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        load_recipe(MODELS / "digits.toml").with_changes(**change)
