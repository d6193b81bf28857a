"""`python -m epaxos.sim`: seeds in one process, without the command line's pool and tables.

Exit code 0: every seed was clean. 1: a sentence did not hold. 2: wrong usage. `epaxos sim` does all
of this and more; this is for machines on which only the library is wanted.
"""

import argparse
import sys

from epaxos.core.errors import ConfigError
from epaxos.registry import find_protocol, protocol_names
from epaxos.sim.soak import Profile, run_seeds

FAILURES_MAX = 5
"""After so many failing seeds the rest is left alone."""


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m epaxos.sim",
        description="Runs whole clusters in virtual time; the same seed is the same run.",
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default 100)")
    parser.add_argument("--first-seed", type=int, default=1, help="the first one (default 1)")
    parser.add_argument(
        "--protocol", default="epaxos", help=f"one of {', '.join(protocol_names())}"
    )
    parser.add_argument("--replicas", default="3,4,5,7", help="sizes to draw from")
    parser.add_argument("--commands", type=int, default=40, help="commands per run (default 40)")
    parser.add_argument(
        "--unsafe-no-gate", action="store_true", help="do not hold back contended keys"
    )
    chosen = parser.parse_args(arguments)
    try:
        find_protocol(chosen.protocol)
        sizes = tuple(int(each) for each in chosen.replicas.split(","))
        profile = Profile(chosen.protocol, sizes, chosen.commands, not chosen.unsafe_no_gate)
    except ConfigError as error:
        parser.error(str(error))
    except ValueError:
        parser.error("--replicas takes numbers from 1 to 9, like 3,5,7")
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    tally = run_seeds(profile, seeds, FAILURES_MAX)
    for failure in tally.failures[:1]:
        print(failure.story)
    for failure in tally.failures:
        print(f"seed {failure.options.seed}: violated: {failure.sentence}: {failure.detail}")
    print(f"{tally.clean} seeds clean, {len(tally.failures)} failed; {tally.answered:,} answered")
    for name, value in tally.situations.items():
        print(f"  {name:34}{value:>12,}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
