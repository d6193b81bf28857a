"""The stage of the stories about EPaxos*: the real replica is watched in all it does; of a broken
one only what others see, or the one sentence that its story is about."""

from epaxos.node.node import Node
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.schedule.stage import directed


class Broken(Exception):
    """A sentence of one story does not hold."""


def cluster(n, replica=EPaxosReplica, node=Node, about=None):
    """Replicas A, B, C, ... that have just started."""
    if replica is EPaxosReplica and node is Node:
        return directed(n)
    return directed(n, replica=replica, node=node, deep=False, only=about)
