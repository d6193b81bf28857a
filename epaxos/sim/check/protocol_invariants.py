"""Observers that know a protocol: its invariants, and whether what it said survives a crash.

Rules of this file: a protocol takes part through the module that `ProtocolSpec.invariants` names
(`check`, `snapshot`, `check_step`, `check_remembered`, `check_cluster`), whose functions raise
AssertionError. One without such a module is watched by all the others only.
"""

from importlib import import_module
from typing import Any

from epaxos.core.replica import Message
from epaxos.core.types import ReplicaId
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import INVARIANT, REMEMBERED, Violation


class _NoInvariants:
    """Of a protocol that has none."""

    @staticmethod
    def snapshot(replica: object) -> None:
        """Nothing to compare later."""

    @staticmethod
    def check(*told: object) -> None:
        """Nothing to look at."""

    check_step = check_remembered = check_cluster = check


def invariants_of(spec: ProtocolSpec) -> Any:
    """The module of a protocol's own invariants, or what stands for none."""
    return import_module(spec.invariants) if spec.invariants else _NoInvariants


class ProtocolWatch:
    """State and step invariants after each step (when deep), promises after each crash."""

    def __init__(self, spec: ProtocolSpec, deep: bool) -> None:
        self._deep = deep
        self._module = invariants_of(spec)
        self._before: dict[ReplicaId, Any] = {}
        self._said: dict[ReplicaId, list[Message]] = {}

    def start(self, member: ReplicaId, node: Node) -> None:
        if not self._deep:
            return
        try:
            self._module.check(node.replica)
        except AssertionError as error:
            raise Violation(INVARIANT, str(error)) from None
        self._before[member] = self._module.snapshot(node.replica)

    def stepped(self, member: ReplicaId, node: Node) -> None:
        if not self._deep:
            return
        try:
            before = self._before[member]
            self._before[member] = self._module.check_step(before, node.replica)
        except AssertionError as error:
            raise Violation(INVARIANT, str(error)) from None

    def together(self, nodes: list[Node]) -> None:
        """At the end of a run: what holds among the replicas that live."""
        try:
            self._module.check_cluster([node.replica for node in nodes])
        except AssertionError as error:
            raise Violation(INVARIANT, str(error)) from None

    def said(self, member: ReplicaId, message: Message) -> None:
        self._said.setdefault(member, []).append(message)

    def remembered(self, member: ReplicaId, restored: Node) -> None:
        """After a crash: does what the disk kept cover what was said in all lives?"""
        try:
            for message in self._said.get(member, ()):
                self._module.check_remembered(restored.replica, message)
        except AssertionError as error:
            raise Violation(REMEMBERED, str(error)) from None
