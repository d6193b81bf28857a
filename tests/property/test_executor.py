"""The executor against the definition, drawn with networkx: components of the pruned graph of all
that is committed, dependencies first, (slot, replica) inside (R6)."""

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from epaxos.core.command import Batch, Payload, interferes
from epaxos.core.replica import Decided, Path
from epaxos.execution.graph_executor import GraphExecutor

N = 3


@st.composite
def histories(draw):
    """Committed instances without holes in which of two interfering ones one names the other."""
    tops = [draw(st.integers(0, 6)) for _ in range(N)]
    ids = [(q, s) for q in range(N) for s in range(1, tops[q] + 1)]
    payloads, deps = {}, {}
    for key in ids:
        nop = draw(st.integers(0, 9)) == 0
        names = draw(st.lists(st.sampled_from([b"x", b"y", b"z"]), min_size=1, max_size=3))
        codes = bytes(draw(st.sampled_from([0, 1])) for _ in names)
        batch = Batch(key[0], key[1], codes, names, [b""] * len(names))
        payloads[key] = None if nop else Payload.of(batch)
        vector = [draw(st.integers(0, top)) for top in tops]
        vector[key[0]] = draw(st.integers(0, key[1] - 1))
        deps[key] = [0] * N if nop else vector
    for a in ids:
        for b in ids:
            if a < b and payloads[a] and payloads[b] and meets(payloads, a, b):
                if deps[a][b[0]] >= b[1] or deps[b][a[0]] >= a[1]:
                    continue
                later, earlier = (b, a) if b[0] != a[0] or b[1] > a[1] else (a, b)
                deps[later][earlier[0]] = max(deps[later][earlier[0]], earlier[1])
    decided = [Decided(*key, tuple(deps[key]), payloads[key], Path.LEARNED) for key in ids]
    return draw(st.permutations(decided))


def meets(payloads, a, b):
    return interferes(payloads[a].footprint, payloads[b].footprint)


def edges(decided):
    """Pruned edges: to interfering instances of the closed prefix that are not Nop."""
    by_id = {(d.replica, d.slot): d for d in decided}
    graph = nx.DiGraph()
    for key, each in by_id.items():
        if each.payload is None:
            continue
        graph.add_node(key)
        for other, theirs in by_id.items():
            if (
                other != key
                and theirs.payload is not None
                and other[1] <= each.deps[other[0]]
                and interferes(each.payload.footprint, theirs.payload.footprint)
            ):
                graph.add_edge(key, other)
    return graph


def run(decided):
    executor = GraphExecutor(N)
    order, components = [], []
    seen = {}
    for each in decided:
        executor.commit(each)
        seen[each.replica, each.slot] = each
        for component in executor.ready():
            keys = [(d.replica, d.slot) for d in component if d.payload is not None]
            check_ready(component, seen)
            order += keys
            components.append(keys)
    return executor, order, [c for c in components if c]


def check_ready(component, seen):
    """Nothing executes before all of its prefix, and all it reaches through edges, is committed."""
    known = edges(seen.values())
    for each in component:
        key = (each.replica, each.slot)
        if each.payload is None:
            continue
        for reached in {key, *nx.descendants(known, key)}:
            for column, top in enumerate(seen[reached].deps):
                assert all((column, slot) in seen for slot in range(1, top + 1))


@settings(max_examples=300, deadline=None)
@given(histories())
def test_components_are_those_of_the_definition(decided):
    executor, order, components = run(decided)
    graph = edges(decided)
    expected = {
        tuple(sorted(c, key=lambda k: (k[1], k[0])))
        for c in nx.strongly_connected_components(graph)
    }
    assert {tuple(c) for c in components} == expected
    assert len(order) == len(set(order)) == graph.number_of_nodes()
    position = {key: at for at, key in enumerate(order)}
    condensed = nx.condensation(graph)
    members = condensed.graph["mapping"]
    for a, b in graph.edges:
        if members[a] != members[b]:
            assert position[b] < position[a]
    assert not executor.pending()
    assert not executor.blocked()


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_every_order_of_arrival_executes_interfering_instances_alike(decided, rng):
    _, first, _ = run(decided)
    other = list(decided)
    rng.shuffle(other)
    _, second, _ = run(other)
    by_id = {(d.replica, d.slot): d for d in decided}
    for at, a in enumerate(first):
        for b in first[at + 1 :]:
            if interferes(by_id[a].payload.footprint, by_id[b].payload.footprint):
                assert second.index(a) < second.index(b)


def test_a_hot_key_of_ten_thousand_is_one_component_and_quick():
    """Each names its successor in the next column: one component, found without recursion and
    without a look at every pair."""
    size = 10_000
    decided = []
    for number in range(size):
        column, slot = number % 2, number // 2 + 1
        deps = [0, 0, 0]
        deps[1 - column] = min(slot + (column == 1), size // 2)
        deps[column] = slot - 1
        batch = Batch(column, slot, b"\1", [b"hot"], [b""])
        decided.append(Decided(column, slot, tuple(deps), Payload.of(batch), Path.LEARNED))
    executor = GraphExecutor(N)
    for each in decided:
        executor.commit(each)
    assert [len(component) for component in executor.ready()] == [size]
    assert executor.statistics()["component_max"] == size
