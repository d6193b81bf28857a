"""A protocol that is wrong, as one from outside: the museum's acceptors that repeat what they were
told, so that no two replicas agree on the order of what interferes."""

from dataclasses import replace

from epaxos.registry import find_protocol
from epaxos.sim.museum import find

with find("echoed-deps").plant(find_protocol("epaxos")) as _planted:
    SPEC = replace(_planted.spec, name="echoing", title="Echoing")
