"""A step, an epoch, and what they draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_training import CONV, DENSE, SmallTraining, same_state, whole

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.training.samples import Batch


@pytest.fixture
def small(tmp_path: Path) -> SmallTraining:
    return SmallTraining(tmp_path)


@pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])
def test_a_step_moves_both_uses_of_a_weight_by_the_sum_of_their_gradients(
    small: SmallTraining, model: dict[str, Any]
) -> None:
    small.model = model
    trainer = small.trainer()
    twin = small.initial_module()
    small.model = model | {"tied": False}
    untied = small.initial_module()
    state = twin.state_dict()
    untied.load_state_dict(
        state
        | {
            f"layers.{i}.decoder_weight": state[f"layers.{i}.weight"]
            for i in range(len(untied.layers))
        }
    )
    batch = small.samples()[:16]
    logits = untied.decode_to_logits(untied.encode(batch))
    torch.nn.functional.binary_cross_entropy_with_logits(logits, batch).backward()

    trainer.step(whole(batch), 0, torch.Generator())

    for tied_layer, layer in zip(trainer.module.layers, untied.layers, strict=True):
        assert tied_layer.weight_of_decoder is tied_layer.weight
        both = layer.weight.grad + layer.decoder_weight.grad
        torch.testing.assert_close(tied_layer.weight.grad, both)
        assert not torch.equal(tied_layer.weight, layer.weight)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_step_is_the_one_of_a_bare_loop(small: SmallTraining, optimizer: str) -> None:
    small.training |= {"optimizer": optimizer, "weight_decay": 0.1, "schedule": "constant"}
    trainer = small.trainer()
    module = small.initial_module()
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    bare = kinds[optimizer](module.parameters(), lr=1e-3, weight_decay=0.1)

    for step in range(3):
        batch = small.samples()[16 * step : 16 * (step + 1)]
        bare.zero_grad()
        logits = module.decode_to_logits(module.encode(batch))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, batch).backward()
        bare.step()
        trainer.step(whole(batch), step, torch.Generator())

    for ours, theirs in zip(trainer.module.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_cosine_falls_from_the_learning_rate_to_zero(small: SmallTraining) -> None:
    small.training |= {"learning_rate": 0.02}
    trainer = small.trainer()
    steps = 4 * trainer.steps_per_epoch

    assert trainer.learning_rate(0) == 0.02
    assert trainer.learning_rate(steps // 2) == pytest.approx(0.01)
    assert trainer.learning_rate(steps) == pytest.approx(0)


def test_an_epoch_takes_every_sample_once_in_an_order_of_its_own(small: SmallTraining) -> None:
    trainer = small.trainer()
    batches: list[torch.Tensor] = []
    step = trainer.step

    def recorded(batch: Batch, *rest: Any) -> torch.Tensor:
        batches.append(batch.clean)
        return step(batch, *rest)

    trainer.step = recorded
    orders = []
    for epoch in (0, 1, 0):
        batches.clear()
        trainer.train_epoch(epoch)
        orders.append(torch.cat(batches))

    first = [sorted(order.sum(1).tolist()) for order in orders]
    assert first[0] == first[1] == sorted(small.samples().sum(1).tolist())
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])


@pytest.mark.parametrize(("kind", "amount"), [("masking", 0.3), ("gaussian", 0.3)])
def test_noise_goes_in_and_the_clean_sample_is_the_target(
    small: SmallTraining, kind: str, amount: float
) -> None:
    small.training |= {"noise": {"kind": kind, "amount": amount}}
    trainer = small.trainer()
    clean = torch.ones(500, 16)
    seen: list[torch.Tensor] = []
    encode = trainer.module.encode
    trainer.module.encode = lambda x: encode(seen.append(x) or x)
    before = {name: p.clone() for name, p in trainer.module.state_dict().items()}

    loss = trainer.step(whole(clean), 0, torch.Generator().manual_seed(0))

    noise = seen[0] - clean
    if kind == "masking":
        assert set(seen[0].unique().tolist()) == {0.0, 1.0}
        # Five standard deviations of a mean of 8,000 draws.
        assert float(-noise.mean()) == pytest.approx(amount, abs=5 * (0.3 * 0.7 / 8000) ** 0.5)
    else:
        assert float(noise.mean()) == pytest.approx(0, abs=5 * amount / 8000**0.5)
        assert float(noise.std()) == pytest.approx(amount, abs=5 * amount / 16000**0.5)
    module = small.initial_module()
    module.load_state_dict(before)
    logits = module.decode_to_logits(module.encode(seen[0]))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, clean)
    torch.testing.assert_close(loss, expected.detach())


def test_a_training_leaves_the_global_generator_alone(small: SmallTraining) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    small.trainer().train_epoch(0)

    assert torch.equal(torch.rand(3), expected)


def test_the_seed_decides_everything(small: SmallTraining) -> None:
    states = []
    for seed in (1, 1, 2):
        small.training |= {"seed": seed}
        trainer = small.trainer()
        trainer.train_epoch(0)
        states.append(trainer.module.state_dict())

    assert same_state(states[0], states[1])
    assert not same_state(states[0], states[2])
