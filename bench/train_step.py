"""What a training step costs over a bare PyTorch loop on the same model.

python bench/train_step.py [models/digits.toml] [--batch 128]
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import msgspec
import torch
from record import record, take_turns
from torch.nn import functional

from tiedexport.recipe import load_recipe
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.trainer import Trainer

STEPS_A_ROUND = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent.parent / "models" / "digits.toml"
    parser.add_argument("recipe", nargs="?", default=default)
    parser.add_argument("--batch", type=int, help="default: the recipe's")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.recipe)
    batch = arguments.batch or recipe.training.batch_size
    training = msgspec.structs.replace(recipe.training, batch_size=batch, epochs=10**6, shift=0)
    recipe = msgspec.structs.replace(recipe, training=training)
    samples = torch.rand(batch * STEPS_A_ROUND, recipe.config.widths[0])
    trainer = Trainer(recipe, SamplesInMemory(samples, training))
    bare = BareLoop(recipe.config.widths, samples, batch, training.learning_rate)
    figures = take_turns(lambda: trainer.train_epoch(0), bare.epoch, arguments.rounds)
    for name in ("ours_s", "theirs_s"):
        figures[name] /= STEPS_A_ROUND
    record(
        f"train_step_batch_{batch}",
        {
            **figures,
            "widths": ",".join(map(str, recipe.config.widths)),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
        },
    )


class BareLoop:
    """The same stack written by hand: ReLU, linear code, cross-entropy, fused Adam."""

    def __init__(
        self, widths: tuple[int, ...], samples: torch.Tensor, batch: int, learning_rate: float
    ) -> None:
        self.samples, self.batch = samples, batch
        self.layers = [
            (
                torch.nn.Parameter(torch.randn(after, before) * (2 / before) ** 0.5),
                torch.nn.Parameter(torch.zeros(after)),
                torch.nn.Parameter(torch.zeros(before)),
            )
            for before, after in pairwise(widths)
        ]
        parameters = [parameter for layer in self.layers for parameter in layer]
        self.optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)

    def epoch(self) -> None:
        """Every sample once."""
        order = torch.randperm(len(self.samples))
        for indices in order.split(self.batch):
            x = clean = self.samples[indices]
            for depth, (weight, bias, _) in enumerate(self.layers, start=1):
                x = functional.linear(x, weight, bias)
                x = x if depth == len(self.layers) else torch.relu(x)
            for depth, (weight, _, bias) in reversed(list(enumerate(self.layers))):
                x = functional.linear(x, weight.t(), bias)
                x = torch.relu(x) if depth > 0 else x
            loss = functional.binary_cross_entropy_with_logits(x, clean)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


if __name__ == "__main__":
    main()
