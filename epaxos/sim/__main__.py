"""`python -m epaxos.sim`: run seeds, tell the story of a failure.

Exit code 0: every seed was clean. 1: a sentence did not hold. 2: wrong usage.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict

import topology
from epaxos.core.errors import ConfigError
from epaxos.registry import find_protocol, protocol_names
from epaxos.sim.contention import contend
from epaxos.sim.options import draw
from epaxos.sim.run import Failure, tell

FAILURES_MAX = 5
"""After so many failing seeds the rest is left alone."""


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        find_protocol(chosen.protocol)
        replicas = tuple(int(each) for each in chosen.replicas.split(","))
        if not all(1 <= each <= 9 for each in replicas):
            raise ConfigError("--replicas takes numbers from 1 to 9, like 3,5,7")
    except ConfigError as error:
        parser.error(str(error))
    except ValueError:
        parser.error("--replicas takes numbers from 1 to 9, like 3,5,7")
    if chosen.contended:
        return _contended(chosen)
    return _seeds(chosen, replicas)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m epaxos.sim",
        description="Runs whole clusters in virtual time: crashes, lost and duplicated messages, "
        "partitions, slow disks. The same seed is the same run.",
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default 100)")
    parser.add_argument("--first-seed", type=int, default=1, help="the first one (default 1)")
    parser.add_argument(
        "--protocol", default="epaxos", help=f"one of {', '.join(protocol_names())}"
    )
    parser.add_argument("--replicas", default="3,5,7", help="sizes to draw from (default 3,5,7)")
    parser.add_argument("--commands", type=int, default=40, help="commands per run (default 40)")
    parser.add_argument(
        "--unsafe-no-gate",
        action="store_true",
        help="do not hold back commands on contended keys",
    )
    parser.add_argument(
        "--contended",
        action="store_true",
        help="no faults: every region writes one key, 100 times a second; shows how long answers "
        "take with the rule for contended keys (or without it: --unsafe-no-gate)",
    )
    parser.add_argument("--seconds", type=float, default=30, help="with --contended (default 30)")
    parser.add_argument("--topology", default=topology.DEFAULT, help="with --contended")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _seeds(chosen: argparse.Namespace, replicas: tuple[int, ...]) -> int:
    last = chosen.first_seed + chosen.seeds - 1
    print(
        f"{chosen.protocol}: seeds {chosen.first_seed} to {last}, n in {chosen.replicas}, "
        f"{chosen.commands} commands each",
        file=sys.stderr,
    )
    total: Counter[str] = Counter()
    failures: list[Failure] = []
    clean = answered = 0
    for number, seed in enumerate(range(chosen.first_seed, last + 1), 1):
        options = draw(seed, chosen.protocol, replicas, chosen.commands, not chosen.unsafe_no_gate)
        outcome = tell(options)
        if isinstance(outcome, Failure):
            failures.append(outcome)
            if len(failures) == FAILURES_MAX:
                break
        else:
            clean += 1
            answered += outcome.answered
            total.update(outcome.counts)
        if sys.stderr.isatty():
            print(f"\r{number} of {chosen.seeds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if chosen.json:
        print(
            json.dumps(
                {
                    "protocol": chosen.protocol,
                    "clean": clean,
                    "answered": answered,
                    "counts": dict(total),
                    "failures": [asdict(failure) for failure in failures],
                }
            )
        )
    else:
        _print_summary(chosen, clean, answered, total, failures)
    return 1 if failures else 0


def _print_summary(
    chosen: argparse.Namespace,
    clean: int,
    answered: int,
    total: Counter[str],
    failures: list[Failure],
) -> None:
    for failure in failures[:1]:
        print(failure.story)
    for failure in failures:
        seed = failure.options.seed
        print(f"\nseed {seed}, n = {failure.options.replicas}: violated: {failure.sentence}")
        print(f"  {failure.detail}")
        print(
            f"  again: python -m epaxos.sim --protocol {chosen.protocol} --first-seed {seed} "
            f"--seeds 1 --replicas {chosen.replicas} --commands {chosen.commands}"
        )
    print(f"{clean} seeds clean, {len(failures)} failed; {answered:,} commands answered")
    for name, value in total.items():
        print(f"  {name:24}{value:>14,}")


def _contended(chosen: argparse.Namespace) -> int:
    try:
        sites = topology.find(chosen.topology)
    except topology.TopologyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = contend(sites, not chosen.unsafe_no_gate, 100, chosen.seconds, chosen.first_seed)
    if chosen.json:
        print(json.dumps(asdict(found)))
        return 0
    rtt = found.rtt_max_us
    rule = "without" if chosen.unsafe_no_gate else "with"
    print(
        f"{sites.n} regions of {sites.name}, 100 commands/s each on one key for "
        f"{chosen.seconds:g} s, {rule} the rule for contended keys"
    )
    print(f"  answered      {found.answered:,} of {found.sent:,}")
    print(f"  p50           {found.p50_us / 1000:,.1f} ms  ({found.p50_us / rtt:.1f} RTT_max)")
    print(f"  p99           {found.p99_us / 1000:,.1f} ms  ({found.p99_us / rtt:.1f} RTT_max)")
    print(f"  oldest open   {found.oldest_us / 1000:,.1f} ms  at the end of the load")
    return 0


if __name__ == "__main__":
    sys.exit(main())
