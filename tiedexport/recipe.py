"""A recipe: one TOML file that says what to train, on what, how, and what to build from it."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import torch
from msgspec import Meta, Struct

from tiedexport.errors import RecipeError, UsageError
from tiedexport.families import StackConfig, family_named
from tiedexport.spec import Precision

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Section = TypeVar("Section", bound=Struct)


class Noise(Struct, frozen=True, forbid_unknown_fields=True):
    """What a denoising autoencoder has to undo; the loss compares with the clean sample.

    `masking` sets each element to 0 with probability `amount`; `gaussian` adds normal noise of
    standard deviation `amount`. Source: Vincent et al., "Stacked Denoising Autoencoders", JMLR 11
    (2010), section 3.3.
    """

    kind: Literal["masking", "gaussian"]
    amount: Annotated[float, Meta(gt=0, lt=1)]


class DataSection(Struct, frozen=True):
    """What to train on: arguments of `tiedexport.data.load`.

    Attributes:
        source: "synthetic-digits", "sklearn-digits", or a path. A folder of .npy or Parquet files,
            a pattern such as "data/*.npy" and a Parquet file are streamed while the training goes
            on: they may be larger than the memory.
        train: how many samples to train on; left out, 5,000 synthetic ones, of others 80 %.
        held_back: how many to validate and test with, 60 % and 40 % of them; left out, 5,000
            synthetic ones, of a stream a fifth and at most 10,000, of others the rest.
        seed: shuffles the samples, or draws the synthetic ones.
        stream: whether one .npy file is streamed too.
        column: of Parquet files, the one that holds the samples, a list of numbers a row; left out,
            the only one of lists, or the one named as samples are, such as "x" or "images".
        lanes: among how many processes the reading of a stream can be shared. More lanes mean
            shorter runs of neighbours, not more memory.
    """

    source: str
    train: Positive | None = None
    held_back: Annotated[int, Meta(ge=2)] | None = None
    seed: Seed = 0
    stream: bool = False
    column: str | None = None
    lanes: Positive = 16


class TrainingSection(Struct, frozen=True):
    """How to train.

    Attributes:
        schedule: of the learning rate; "cosine" falls from `learning_rate` to 0 over all steps.
        loss: "bce" is binary cross-entropy with logits, "mse" the mean squared error.
        noise: "none", or a table such as {kind = "masking", amount = 0.3}.
        shift: each batch of images is moved by up to that many pixels up or down and left or
            right, the same way for input and target, and what moves in is 0.
        patience: stop after that many epochs without a better validation RMSE; 0 never stops.
        seed: of the initial weights, the order of the samples, and the noise.
    """

    epochs: Positive
    batch_size: Positive = 128
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 1e-3
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    loss: Literal["bce", "mse"] = "bce"
    noise: Noise | Literal["none"] = "none"
    shift: Annotated[int, Meta(ge=0, le=16)] = 0
    patience: Count = 0
    seed: Seed = 0


class BuildSection(Struct, frozen=True):
    """What `tiedexport build` makes of the checkpoint unless told otherwise.

    Attributes:
        precisions: types to store and compute in.
        targets: engines, such as "rtx:sm89"; none means all that the machine can build.
    """

    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16)
    targets: tuple[str, ...] = ()


class Recipe(Struct, frozen=True):
    """A checked recipe: it describes a possible model and contains no contradiction."""

    path: str
    family: str
    config: StackConfig
    data: DataSection
    training: TrainingSection
    build: BuildSection

    def with_changes(
        self, *, data: str | Path | None = None, epochs: int | None = None, seed: int | None = None
    ) -> Recipe:
        """The same recipe with other data, epochs or training seed.

        Other data is split as the loader does by itself: the sizes in a recipe belong to the data
        that it names. `seed` leaves the data as it is, so that runs remain comparable.

        Raises:
            UsageError: `epochs` or `seed` is out of range.
        """
        limits = {"epochs": (epochs, 1), "seed": (seed, 0)}
        for name, (value, least) in limits.items():
            if value is not None and not least <= value < 2**63:
                raise UsageError(
                    f"{name} is out of range", got=value, expected=f"{least} to 2^63 - 1"
                )
        section = self.data
        if data is not None and str(data) != section.source:
            section = DataSection(source=str(data), seed=section.seed)
        changes = {"epochs": epochs, "seed": seed}
        training = msgspec.structs.replace(
            self.training, **{name: value for name, value in changes.items() if value is not None}
        )
        return msgspec.structs.replace(self, data=section, training=training)

    def to_tables(self) -> dict[str, Any]:
        """The recipe as TOML's tables, in JSON's types, every default written out."""
        fields = msgspec.json.decode(msgspec.json.encode(self))
        model = {"family": self.family, **fields["config"]}
        return {"model": model, **{name: fields[name] for name in ("data", "training", "build")}}


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: the file is missing or no TOML; a table or field is missing, unknown, of the
            wrong type or out of range; the model is impossible; or two fields contradict.
    """
    tables = _read_tables(Path(path))
    model = dict(tables["model"])
    name = model.pop("family", "autoencoder")
    try:
        family = family_named(name, trained=True)
    except UsageError as error:
        raise RecipeError(
            error.what, where=f"{path}: model.family", got=error.got, expected=error.expected
        ) from error
    config = _section(path, "model", family.config_type, model)
    assert isinstance(config, StackConfig)  # as every family that can be trained has it
    try:
        with torch.device("meta"):
            family.module(config)
    except RecipeError as error:
        raise RecipeError(
            error.what,
            where=f"{path}: {error.where}",
            got=error.got,
            expected=error.expected,
            hint=error.hint,
        ) from error
    except (RuntimeError, TypeError) as error:  # sizes that PyTorch cannot even count
        raise RecipeError(
            "the model is too large",
            where=f"{path}: model",
            got=str(error).splitlines()[0],
            hint="take a smaller model",
        ) from error
    training = _section(path, "training", TrainingSection, tables["training"])
    if training.loss == "bce" and config.output != "sigmoid":
        raise RecipeError(
            "binary cross-entropy needs an output in [0, 1]",
            where=f"{path}: training.loss, model.output",
            got=f'loss = "bce" with output = "{config.output}"',
            expected='output = "sigmoid", or loss = "mse"',
        )
    data = _section(path, "data", DataSection, tables["data"])
    build = _section(path, "build", BuildSection, tables.get("build", {}))
    return Recipe(str(path), name, config, data, training, build)


def _read_tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(
            "the recipe cannot be read",
            where=path,
            got=error.strerror,
            hint="two come with tiedexport: models/digits.toml and models/hinton2006.toml",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError("the recipe is no valid TOML", where=path, got=error) from error
    known = ("model", "data", "training", "build")
    for name, table in tables.items():
        if name not in known:
            raise _unknown(path, f"[{name}]", name, known)
        if not isinstance(table, dict):
            raise RecipeError(
                "this is no table", where=f"{path}: {name}", got=repr(table), expected=f"[{name}]"
            )
    for name in known[:3]:
        if name not in tables:
            raise RecipeError(
                "a table is missing",
                where=path,
                got=", ".join(f"[{table}]" for table in tables) or "no table at all",
                expected=f"[{name}]",
            )
    return tables


def _section(path: str | Path, name: str, section: type[Section], table: dict[str, Any]) -> Section:
    """Convert field by field, so that an error names the field without reading msgspec's words."""
    fields = {field.name: field for field in msgspec.structs.fields(section)}
    for key in table:
        if key not in fields:
            raise _unknown(path, f"{name}.{key}", key, tuple(fields))
    values = {}
    for key, field in fields.items():
        where = f"{path}: {name}.{key}"
        if key in table:
            try:
                values[key] = msgspec.convert(table[key], type=field.type)
            except msgspec.ValidationError as error:
                raise RecipeError(
                    "the value does not fit this field",
                    where=where,
                    got=repr(table[key]),
                    expected=_expected(field.type, error),
                ) from error
        elif field.required:
            raise RecipeError("a field is missing", where=where, expected=f"{key} = …")
    return section(**values)


def _expected(kind: Any, error: msgspec.ValidationError) -> str:
    """The choices of a Literal, which msgspec does not list; otherwise its own words."""
    choices = getattr(msgspec.inspect.type_info(kind), "values", None)
    return ", ".join(map(repr, choices)) if choices else str(error).removeprefix("Expected ")


def _unknown(path: str | Path, place: str, name: str, known: tuple[str, ...]) -> RecipeError:
    near = difflib.get_close_matches(name, known, 1)
    return RecipeError(
        "unknown name",
        where=f"{path}: {place}",
        expected=", ".join(known),
        hint=f"did you mean {near[0]}?" if near else None,
    )
