"""A Parameter with several names stays one when it is sharded; parts of a batch make it whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed import fsdp

from tiedexport.errors import TieBrokenError
from tiedexport.training.group import joined
from tiedexport.training.parallel import distributed_over, whole
from tiedexport.training.samples import Part
from tiedexport.training.state import tensors_of


class Shared(nn.Module):
    """An encoder and a decoder of one square weight, held by both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.decoder = nn.Linear(6, 6)
        self.decoder.weight = self.encoder.weight

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode_to_logits(self, code: Tensor) -> Tensor:
        return self.decoder(code)


def test_a_shared_parameter_stays_one_and_gets_both_gradients() -> None:
    plain, sharded = Shared(), Shared()
    sharded.load_state_dict(plain.state_dict())
    x = torch.rand(4, 6)
    plain.decode_to_logits(plain.encode(x)).square().mean().backward()

    with joined("cpu", shard=True) as group:
        logits = distributed_over(group, sharded)
        assert sharded.decoder.weight is sharded.encoder.weight
        optimizer = torch.optim.Adam(sharded.parameters(), fused=True)
        logits(x).square().mean().backward()
        gradient = whole(sharded.encoder.weight.grad, group)
        optimizer.step()
        saved = tensors_of(sharded, optimizer)

    torch.testing.assert_close(gradient, plain.encoder.weight.grad)
    assert sum(name.startswith("weight.") for name in saved) == 3
    assert sum(name.startswith("exp_avg.") for name in saved) == 3


def test_a_tie_that_sharding_splits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def splitting(module: nn.Module, **_options: object) -> None:
        inner = module.module
        inner.decoder.weight = nn.Parameter(inner.encoder.weight.detach().clone())

    monkeypatch.setattr(fsdp, "fully_shard", splitting)

    with (
        joined("cpu", shard=True) as group,
        pytest.raises(TieBrokenError, match="split") as caught,
    ):
        distributed_over(group, Shared())

    assert "encoder.weight" in str(caught.value.expected)


@given(size=st.integers(0, 200), processes=st.integers(1, 17))
def test_the_parts_of_a_batch_are_runs_that_make_it_whole(size: int, processes: int) -> None:
    parts = [range(size)[Part(rank, processes).rows(size)] for rank in range(processes)]

    assert [row for part in parts for row in part] == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
