"""A tied autoencoder beside its untied twin: what half the parameters cost, and what they save.

python bench/tied_vs_untied.py [models/digits.toml] [--epochs 30] [--folder FOLDER] [--quick]

The same recipe, data, seed and epochs, trained on the CPU; the twin has a matrix of its own in each
decoder layer. Steps and calls take turns round by round, one thread each.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from contenders import race, statistics, turn_of
from msgspec.structs import replace
from readme_twins import SCRIPT, compared
from record import record, take_turns

from tiedexport import open_bundle, rating
from tiedexport.candidates import candidates
from tiedexport.contender import SessionContender
from tiedexport.export import build
from tiedexport.progress import Progress
from tiedexport.recipe import load_recipe
from tiedexport.session import open_session
from tiedexport.train import train
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tiedexport.bundle import Bundle
    from tiedexport.results import TrainResult
    from tiedexport.spec import TrainingRecord

KINDS = ("tied", "untied")
RUNTIMES = ("native", "onnxruntime")
BATCHES = (1, 64)
PRECISIONS = "fp32,fp16,bf16"
STEPS_A_ROUND = 20
ROUNDS, QUICK_ROUNDS = 61, 3
WARM_UP_S = 0.1


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent.parent / "models" / "digits.toml"
    parser.add_argument("recipe", nargs="?", type=Path, default=default)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--folder", help="keeps both trainings for the next run")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work at all?")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        recipes = {kind: _recipe(arguments.recipe, kind, folder) for kind in KINDS}
        trained = {kind: _trained(path, arguments.epochs) for kind, path in recipes.items()}
        bundles = {kind: _built(Path(result.checkpoint)) for kind, result in trained.items()}
        trainers = {kind: _trainer(path) for kind, path in recipes.items()}
        steps = _steps(trainers, rounds)
        figures: dict[str, Any] = {
            "recipe": arguments.recipe.name,
            "epochs": trained["tied"].record.epochs,
            "seed": trained["tied"].record.seed,
            **{
                kind: {
                    **_of_training(trained[kind].record),
                    **_of_bundle(bundles[kind]),
                    "optimizer_bytes": _optimizer_bytes(trainers[kind]),
                    "quality": _quality(bundles[kind]),
                }
                for kind in KINDS
            },
            "step": steps,
            "latency": _latencies(bundles, rounds),
        }
    shown = {what: ", ".join(cells) for what, *cells in compared(figures)}
    record(SCRIPT, figures, shown)


def _recipe(path: Path, kind: str, folder: Path) -> Path:
    """The recipe itself, or one that differs in a word."""
    text = path.read_text()
    if kind == "untied":
        text = text.replace("[model]\n", "[model]\ntied = false\n", 1)
    copy = folder / f"{kind}.toml"
    copy.write_text(text)
    return copy


def _trained(recipe: Path, epochs: int | None) -> TrainResult:
    output = recipe.with_suffix(".pt")
    begun = output.exists() or Path(f"{output}.resume").exists()
    return train(recipe, output, epochs=epochs, device="cpu", resume=begun)


def _built(checkpoint: Path) -> Bundle:
    result = build(checkpoint, precision=PRECISIONS, target=(), progress=Progress(quiet=True))
    return open_bundle(result.bundle)


def _of_training(found: TrainingRecord) -> dict[str, Any]:
    return {
        "parameters": found.parameters,
        "test_rmse": found.test_rmse,
        "test_psnr_db": rating.psnr_db(found.test_rmse),
    }


def _of_bundle(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle_bytes": sum(one.size_bytes for one in manifest.files.values()),
        "weights_bytes": {
            str(precision): manifest.files[name].size_bytes
            for precision, name in manifest.weights.items()
        },
    }


def _trainer(path: Path) -> Trainer:
    """A training whose epoch is a round of steps, on noise: what a step costs, not what it does."""
    recipe = load_recipe(path)
    training = replace(recipe.training, epochs=10**6, shift=0)
    recipe = replace(recipe, training=training)
    samples = torch.rand(training.batch_size * STEPS_A_ROUND, recipe.config.widths[0])
    return Trainer(recipe, SamplesInMemory(samples, training))


def _steps(trainers: Mapping[str, Trainer], rounds: int) -> dict[str, float]:
    """Seconds of a training step of each; the ratio is the tied one's over its twin's."""
    figures = take_turns(*(partial(trainers[kind].train_epoch, 0) for kind in KINDS), rounds)
    tied_s, untied_s = (figures.pop(name) / STEPS_A_ROUND for name in ("ours_s", "theirs_s"))
    return {"tied_s": tied_s, "untied_s": untied_s, **figures}


def _optimizer_bytes(trainer: Trainer) -> int:
    """What the optimizer keeps of every parameter, after it made steps."""
    states = trainer.optimizer.state.values()
    kept = (value for state in states for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))


def _quality(bundle: Bundle) -> dict[str, Any]:
    """Test RMSE and PSNR of each runtime and precision, or why there are none."""
    samples = rating.held_back(bundle, None)
    found = {}
    for candidate in candidates(bundle, RUNTIMES):
        name = f"{candidate.runtime.name} {candidate.precision}"
        if candidate.reason:
            found[name] = {"not_run": candidate.reason}
            continue
        with open_session(
            bundle,
            runtime=candidate.runtime.name,
            precision=str(candidate.precision),
            threads=1,
        ) as session:
            row = rating.rate(session, candidate.runtime, samples)
        measured = {"test_rmse": row.test_rmse, "test_psnr_db": row.test_psnr_db}
        found[name] = measured if row.status == "passed" else {"not_run": row.reason}
    return found


def _latencies(bundles: Mapping[str, Bundle], rounds: int) -> dict[str, Any]:
    """Both models in every runtime and precision, all taking turns; speed is over the twin's."""
    able = {
        f"{candidate.runtime.name} {candidate.precision} {kind}": (bundle, candidate)
        for kind, bundle in bundles.items()
        for candidate in candidates(bundle, RUNTIMES)
        if not candidate.reason
    }
    racers = {
        name: SessionContender(bundle, one.runtime.name, str(one.precision), 1)
        for name, (bundle, one) in able.items()
    }
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        turns = {}
        for name, racer in racers.items():
            call_s = racer.prepare("autoencoder", batch, WARM_UP_S).call_s
            turns[name] = turn_of(name, racer.take_turn, call_s)
        found, failed = race(turns, rounds, 0.0)
        figures[f"batch {batch}"] = {
            name: statistics(seconds, found.get(name.replace(" tied", " untied")))
            for name, seconds in found.items()
        } | {name: {"not_run": reason} for name, reason in failed.items()}
    for racer in racers.values():
        racer.close()
    return figures


if __name__ == "__main__":
    main()
