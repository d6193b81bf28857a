"""What runs above the node under faults: real driver, transport, ports, clients, log and data
directory, in virtual time, over a network and a file system that a seed scripts."""

from dataclasses import replace
from itertools import product

import pytest

from tests.scripted.cluster import Plan, run_scripted
from tests.scripted.variants import VARIANTS

PROTOCOLS = ("epaxos", "multipaxos")
SEEDS = 16
"""Per protocol; `python -m tests.scripted` runs more."""
NEEDS_HARSH = {"sends before the sync"}
"""Variants that show when machines die in the middle of a step, and rarely otherwise."""
SEARCHED = 80
"""Seeds among which a broken variant must be caught."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("first", range(0, SEEDS, 8))
def test_histories_stay_linearizable_and_all_replicas_agree(protocol, first, tmp_path):
    told = [
        run_scripted(Plan.of(seed, protocol), tmp_path / str(seed))
        for seed in range(first, first + 8)
    ]
    # Faults happened, and the clients saw something of the cluster in between.
    assert sum(run.answered for run in told) > 300
    assert sum(run.broken_links for run in told) > 0
    assert sum(run.kills for run in told) > 0


def test_a_run_is_a_function_of_its_seed(tmp_path):
    plan = replace(Plan.of(3, "epaxos"), durable=True)
    stories = [], []
    for number, story in enumerate(stories):
        run_scripted(plan, tmp_path / str(number), story)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 50


@pytest.mark.parametrize("name", VARIANTS)
def test_a_broken_variant_is_caught(name, tmp_path):
    """None of them is caught by a run without faults; some seed brings it to light."""
    for number, (seed, protocol) in enumerate(product(range(SEARCHED), PROTOCOLS)):
        plan = replace(Plan.of(seed, protocol), durable=True, harsh=name in NEEDS_HARSH)
        with VARIANTS[name]():
            try:
                run_scripted(plan, tmp_path / str(number))
            except Exception:
                return
    pytest.fail(f"no seed below {SEARCHED} catches: {name}")
