"""One training in memory: a model, its optimizer, and an epoch that is as fast as a bare loop."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiedexport.errors import RecipeError
from tiedexport.families import StagedModule, family_named
from tiedexport.training.samples import NOISE, SHIFT, Batch, Samples, generator
from tiedexport.training.shift import Shift

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiedexport.recipe import Recipe

EVALUATION_BATCH = 1024
_OPTIMIZERS: dict[str, type[torch.optim.Adam]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class Trainer:
    """Trains a freshly initialised model of a recipe.

    Everything random is drawn from generators seeded by the recipe's seed and the epoch, and the
    learning rate depends on the step alone: an epoch's result is a function of the state before it.
    On a GPU the forward pass runs in bf16, or in fp16 with a scaled loss where there is no bf16.

    Args:
        recipe: family, configuration, and how to train.
        samples: what an epoch takes.
        device: where to train.
        sample_shape: of one sample as the data has it; needed where the recipe shifts images.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        device: torch.device,
        sample_shape: Sequence[int] = (),
    ) -> None:
        self.recipe = recipe
        self.device = device
        self.module = initial_module(recipe).to(device)
        self.samples = samples
        settings = recipe.training
        self._shift = Shift(sample_shape, settings.shift) if settings.shift else None
        self.steps_per_epoch = math.ceil(samples.count / settings.batch_size)
        self.optimizer = _OPTIMIZERS[settings.optimizer](
            self.module.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        half = device.type == "cuda" and not torch.cuda.is_bf16_supported()
        self._autocast_dtype = torch.float16 if half else torch.bfloat16
        self._scaler = torch.amp.GradScaler(device.type, enabled=half)

    def train_epoch(self, epoch: int, on_step: Callable[[], object] = lambda: None) -> float:
        """Take every sample once, in an order that `epoch` (from 0) decides.

        Args:
            epoch: how many epochs came before.
            on_step: called after each step.

        Returns:
            The loss, averaged over the samples.
        """
        self.module.train()
        noise_generator = self._generator(epoch, NOISE, self.device.type)
        loss_sum = torch.zeros((), device=self.device)
        first_step = epoch * self.steps_per_epoch
        with closing(self.samples.batches(epoch)) as batches:
            moved = zip(batches, self._offsets(epoch), strict=True)
            for step, (batch, offset) in enumerate(moved, first_step):
                clean = batch.clean.to(self.device)
                if self._shift is not None:
                    clean = self._shift.moved(clean, offset)
                loss = self.step(batch._replace(clean=clean), step, noise_generator)
                loss_sum += loss * len(clean)
                on_step()
        # The one place of an epoch that waits for the device.
        return float(loss_sum) / self.samples.count

    def step(self, batch: Batch, step: int, noise_generator: torch.Generator) -> Tensor:
        """One step of the optimizer; the mean loss of this process's rows, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.zero_grad()
        noisy = self._noisy(batch, noise_generator)
        with torch.autocast(
            self.device.type, self._autocast_dtype, enabled=self.device.type == "cuda"
        ):
            logits = self.module.decode_to_logits(self.module.encode(noisy))
        loss = self._loss(logits.float(), batch.clean)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training.

        The cosine schedule is η ½ (1 + cos(π step / steps)), without restarts. Source: Loshchilov
        and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5.
        """
        settings = self.recipe.training
        if settings.schedule == "constant":
            return settings.learning_rate
        progress = step / (settings.epochs * self.steps_per_epoch)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def refuse_divergence(self, epoch: int, loss: float, validation_rmse: float) -> None:
        """Stop a training that has left the finite numbers.

        Raises:
            RecipeError: the loss or the validation RMSE of `epoch` (from 0) is not finite.
        """
        if math.isfinite(loss) and math.isfinite(validation_rmse):
            return
        highest = self.learning_rate(epoch * self.steps_per_epoch)
        raise RecipeError(
            "the training diverged",
            where=f"{self.recipe.path}: training.learning_rate",
            got=f"loss {loss}, validation RMSE {validation_rmse} in epoch {epoch + 1}, "
            f"with a learning rate of {highest:.3g}",
            expected="finite numbers",
            hint="set a lower one, for example "
            f"learning_rate = {self.recipe.training.learning_rate / 10:.3g}",
        )

    def state(self) -> dict[str, Any]:
        """What the next epoch depends on, besides the recipe and the data: views, no copies."""
        return {
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; its tensors are the trainer's from now on.

        Raises:
            KeyError, ValueError, RuntimeError: the state is of another model.
        """
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _offsets(self, epoch: int) -> list[list[int]]:
        """How far each batch of an epoch is moved."""
        if self._shift is None:
            return [[0, 0]] * self.steps_per_epoch
        return self._shift.offsets(self.steps_per_epoch, self._generator(epoch, SHIFT, "cpu"))

    def _noisy(self, batch: Batch, noise_generator: torch.Generator) -> Tensor:
        """What goes in; the noise of the whole batch is drawn, so that it is one for any part."""
        noise = self.recipe.training.noise
        if noise == "none":
            return batch.clean
        draw = torch.rand if noise.kind == "masking" else torch.randn
        shape = (batch.size, *batch.clean.shape[1:])
        drawn = draw(shape, generator=noise_generator, device=self.device)[batch.rows]
        if noise.kind == "masking":
            return batch.clean * (drawn >= noise.amount)
        return batch.clean + noise.amount * drawn

    def _loss(self, logits: Tensor, clean: Tensor) -> Tensor:
        if self.recipe.training.loss == "bce":
            return functional.binary_cross_entropy_with_logits(logits, clean)
        sigmoid = self.recipe.config.output == "sigmoid"
        return functional.mse_loss(torch.sigmoid(logits) if sigmoid else logits, clean)

    def _generator(self, epoch: int, purpose: int, device: str) -> torch.Generator:
        return generator(self.recipe.training.seed, epoch, purpose, device)


def initial_module(recipe: Recipe) -> StagedModule:
    """The model before training, drawn from the recipe's seed; the global generator is left alone.

    On the meta device nothing is drawn: `with torch.device("meta"): initial_module(recipe)`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        return family_named(recipe.family).module(recipe.config)


@torch.no_grad()
def rmse(module: nn.Module, samples: Tensor) -> float:
    """√(mean over all elements of (x̂ - x)²) in float32, of samples [n, *input_shape]."""
    module.eval()
    device = next(module.parameters()).device
    squares = torch.zeros((), dtype=torch.float64, device=device)
    for batch in torch.split(samples, EVALUATION_BATCH):
        inputs = batch.to(device)
        squares += (module(inputs) - inputs).square().sum(dtype=torch.float64)
    return math.sqrt(float(squares) / samples.numel())
