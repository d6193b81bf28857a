"""`python -m tests.scripted`: run many seeds of the running system against the scripted network and
file system, and tell the story of the first that fails."""

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.scripted.cluster import Plan, run_scripted

STORY_LINES = 60


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.scripted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="seeds per protocol (100)")
    parser.add_argument("--first", type=int, default=0, help="first seed (0)")
    parser.add_argument("--protocol", action="append", help="epaxos, multipaxos; both")
    chosen = parser.parse_args()
    total: Counter[str] = Counter()
    failed = 0
    began = time.monotonic()
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        for protocol in chosen.protocol or ("epaxos", "multipaxos"):
            failed += not _one(Plan.of(seed, protocol), total)
        if sys.stderr.isatty():
            print(f"\r{seed + 1 - chosen.first} of {chosen.seeds} seeds", end="", file=sys.stderr)
    print(
        f"{total.pop('runs', 0)} runs in {time.monotonic() - began:.0f} s, {failed} failed: "
        + ", ".join(f"{name} {count:,.0f}" for name, count in total.items() if name != "trace")
    )
    return 1 if failed else 0


def _one(plan: Plan, total: Counter[str]) -> bool:
    story: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            told = run_scripted(plan, Path(directory), story)
        except Exception:
            print("\n".join(story[-STORY_LINES:]))
            traceback.print_exc(limit=-3, file=sys.stdout)
            print(f"FAILED: {plan}", flush=True)
            return False
    total.update({"runs": 1, **asdict(told)})
    return True


if __name__ == "__main__":
    sys.exit(main())
