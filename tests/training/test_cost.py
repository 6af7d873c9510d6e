"""The model of what a training step costs: bounds that it keeps, whatever is assumed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiedexport.families import family_named
from tiedexport.families.autoencoder import Config
from tiedexport.training.cost import (
    H100_HOSTS,
    Cluster,
    Link,
    all_reduce_s,
    parameters,
    ring_s,
    simulate,
)

STACKS = st.lists(st.integers(1, 20_000), min_size=2, max_size=5).map(tuple)
COUNTS = st.integers(1, 1000)


@given(STACKS, st.integers(1, 4096), COUNTS, st.booleans())
def test_a_tie_sends_less_by_as_much_as_it_stores_less(widths, rows, processes, sharded) -> None:
    tied, untied = (
        simulate(widths, rows, processes, H100_HOSTS, tied=tied, sharded=sharded)
        for tied in (True, False)
    )
    matrices = 4 * sum(a * b for a, b in pairwise(widths))
    factor = 2 * (processes - 1) / processes
    assert untied.sent_bytes - tied.sent_bytes == pytest.approx(factor * matrices)
    assert tied.compute_s == untied.compute_s
    assert tied.communication_s <= untied.communication_s
    assert tied.optimizer_s <= untied.optimizer_s


@given(STACKS, st.integers(1, 4096), COUNTS, st.booleans())
def test_what_is_waited_for_lies_between_nothing_and_everything(
    widths, rows, processes, tied
) -> None:
    step = simulate(widths, rows, processes, H100_HOSTS, tied=tied)
    # Each bucket is a sum of its own, with latencies of its own.
    buckets = 2 * len(widths)
    latencies_s = buckets * all_reduce_s(0, processes, H100_HOSTS)
    assert 0 <= step.waited_s <= step.communication_s + latencies_s + 1e-12
    alone = simulate(widths, rows, 1, H100_HOSTS, tied=tied)
    assert alone.waited_s == alone.sent_bytes == 0
    assert alone.seconds <= step.seconds


@pytest.mark.parametrize("processes", [1, 2, 8, 64, 1000])
@pytest.mark.parametrize("widths", [(784, 784, 392, 196), (16384, 8192), (16384, 8192, 4096)])
def test_tied_stacks_of_the_page_are_faster_at_every_count(widths, processes) -> None:
    tied, untied = (
        simulate(widths, 1024, processes, H100_HOSTS, tied=tied) for tied in (True, False)
    )
    assert tied.seconds < untied.seconds


def test_a_ring_is_that_of_patarasuk_and_yuan() -> None:
    assert ring_s(1e9, 4, Link(1e-3, 1e9)) == pytest.approx(6 * 1e-3 + 2 * 3 / 4)


def test_hosts_share_their_links_and_large_counts_go_by_trees() -> None:
    cluster = Cluster(1, 1, 0, devices=8, inner=Link(0, 1e12), outer=Link(1e-3, 1e9))
    within_s = ring_s(8e9, 8, cluster.inner)
    assert all_reduce_s(8e9, 8, cluster) == within_s
    two_hosts_s = ring_s(1e9, 2, cluster.outer)
    assert all_reduce_s(8e9, 16, cluster) == pytest.approx(within_s + two_hosts_s)
    trees_s = 2 * 10 * 1e-3 + 2 * 1e9 / 1e9
    assert all_reduce_s(8e9, 8 * 1024, cluster) == pytest.approx(within_s + trees_s)


def test_what_the_backward_pass_hides_needs_not_be_waited_for() -> None:
    """Layers of 100 MB each, of which the last alone is not hidden where products are slow."""
    widths = (5000,) * 5
    cluster = Cluster(1e12, 1e12, 0, devices=8, inner=Link(0, 1e12), outer=Link(0, 1))
    step = simulate(widths, 4096, 8, cluster, tied=False)
    last_s = all_reduce_s(4 * (5000 * 5000 + 5000), 8, cluster)
    assert step.waited_s == pytest.approx(last_s)
    assert step.communication_s > 7 * last_s


@pytest.mark.parametrize("tied", [True, False])
def test_the_parameters_are_those_of_the_model(tied) -> None:
    widths = (20, 12, 5)
    with torch.device("meta"):
        module = family_named("autoencoder").module(Config(widths=widths, tied=tied))
    assert parameters(widths, tied) == sum(p.numel() for p in module.parameters())
