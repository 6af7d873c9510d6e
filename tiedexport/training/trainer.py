"""One training in memory: a model, its optimizer, and an epoch that is as fast as a bare loop."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from tiedexport.errors import RecipeError
from tiedexport.families import StagedModule, family_named
from tiedexport.training.group import ALONE, Group
from tiedexport.training.parallel import distributed_over, whole
from tiedexport.training.samples import NOISE, SHIFT, Batch, Samples, generator
from tiedexport.training.shift import Shift
from tiedexport.training.state import Position, fill, tensors_of

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
        group: where to train and with whom; each of them makes a trainer of its own.
        sample_shape: of one sample as the data has it; needed where the recipe shifts images.
        dtype: of weights and samples; float64 tells rounding from mistakes.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        group: Group = ALONE,
        sample_shape: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.recipe = recipe
        self.samples = samples
        self.group = group
        self.module = initial_module(recipe).to(group.device, dtype)
        self._logits = distributed_over(group, self.module)
        self._dtype = dtype
        settings = recipe.training
        self._shift = Shift(sample_shape, settings.shift) if settings.shift else None
        self.steps_per_epoch = math.ceil(samples.count / settings.batch_size)
        self._position: Position | None = None
        self.optimizer = _OPTIMIZERS[settings.optimizer](
            self.module.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        half = group.device.type == "cuda" and not torch.cuda.is_bf16_supported()
        self._autocast_dtype = torch.float16 if half else torch.bfloat16
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=half)

    @property
    def steps_done(self) -> int:
        """Steps of the epoch that is not over yet."""
        return self._position.steps if self._position else 0

    def train_epoch(self, epoch: int, on_step: Callable[[], object] = lambda: None) -> float:
        """Take every sample once, in an order that `epoch` (from 0) decides.

        After `restore` it goes on where the state was within the epoch.

        Args:
            epoch: how many epochs came before.
            on_step: called after each step.

        Returns:
            The loss, averaged over the samples of all processes.
        """
        self.module.train()
        position = self._position = self._position or self._start_of(epoch)
        first_step = epoch * self.steps_per_epoch
        offsets = self._offsets(epoch)
        with closing(self.samples.batches(epoch, position.steps)) as batches:
            for batch in batches:
                clean = batch.clean.to(self.group.device, self._dtype)
                if self._shift is not None:
                    clean = self._shift.moved(clean, offsets[position.steps])
                moved = batch._replace(clean=clean)
                loss = self.step(moved, first_step + position.steps, position.noise)
                position.loss_sum += loss * len(clean)
                position.steps += 1
                on_step()
        self._position = None
        # The one place of an epoch that waits for the device.
        return float(self.group.sum(position.loss_sum)) / self.samples.count

    def step(self, batch: Batch, step: int, noise_generator: torch.Generator) -> Tensor:
        """One step of the optimizer; the mean loss of this process's rows, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.zero_grad()
        noisy = self._noisy(batch, noise_generator)
        device_type = self.group.device.type
        with torch.autocast(device_type, self._autocast_dtype, enabled=device_type == "cuda"):
            logits = self._logits(noisy)
        loss = self._loss(logits.to(self._dtype), batch.clean)
        # Gradients become means over processes, however many rows each has: make it over rows.
        share = len(batch.clean) * self.group.part.processes / batch.size
        torch.autograd.backward(self._scaler.scale(loss * share))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach()

    def rmse(self, samples: Tensor) -> float:
        """As the function `rmse`, of the model as it is now; each process takes a part."""
        self.module.eval()
        samples = samples.to(self._dtype)
        return rmse(lambda x: self.module.activate_output(self._logits(x)), samples, self.group)

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
        """What the next step depends on, besides the recipe and the data: views, no copies.

        Every process has to ask for it after the same step.
        """
        return {
            "tensors": tensors_of(self.module, self.optimizer),
            "scaler": self._scaler.state_dict(),
            "position": self._position and self._position.state(self.group),
        }

    def restore(self, state: dict[str, Any], rows: Callable[[str, slice], Tensor]) -> None:
        """Go on from a state, whichever number of processes it comes from.

        Args:
            state: as `state` gives it.
            rows: some rows of one of its tensors; all of one that has no rows.

        Raises:
            KeyError, ValueError, RuntimeError: the state is of another model.
        """
        fill(self.module, self.optimizer, self.group, rows)
        self._scaler.load_state_dict(state["scaler"])
        position = state["position"]
        self._position = position and Position.restored(position, self.group)

    def weights(self) -> dict[str, Tensor]:
        """As a checkpoint has them: whole copies on the CPU. Every process has to ask for them."""
        copies: dict[int, Tensor] = {}
        for tensor in (state := self.module.state_dict(keep_vars=True)).values():
            if id(tensor) not in copies:
                copies[id(tensor)] = whole(tensor, self.group)
        return {name: copies[id(tensor)] for name, tensor in state.items()}

    def _start_of(self, epoch: int) -> Position:
        device = self.group.device
        noise = self._generator(epoch, NOISE, device.type)
        return Position(noise, torch.zeros((), dtype=self._dtype, device=device))

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
        drawn = draw(shape, generator=noise_generator, device=self.group.device)[batch.rows]
        if noise.kind == "masking":
            return batch.clean * (drawn >= noise.amount)
        return batch.clean + noise.amount * drawn

    def _loss(self, logits: Tensor, clean: Tensor) -> Tensor:
        if not len(clean):  # nothing to average, but a part in the backward pass nevertheless
            return logits.sum()
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
def rmse(reconstruct: Callable[[Tensor], Tensor], samples: Tensor, group: Group = ALONE) -> float:
    """√(mean over all elements of (x̂ - x)²), of samples [n, *input_shape].

    Args:
        reconstruct: x → x̂, in evaluation mode, on the group's device.
        samples: all of them; every process of the group takes a part.
        group: who has to call this, and gets the same number.
    """
    squares = torch.zeros((), dtype=torch.float64, device=group.device)
    for batch in torch.split(samples, EVALUATION_BATCH):
        inputs = batch[group.part.rows(len(batch))].to(group.device)
        squares += (reconstruct(inputs) - inputs).square().sum(dtype=torch.float64)
    return math.sqrt(float(group.sum(squares)) / samples.numel())
