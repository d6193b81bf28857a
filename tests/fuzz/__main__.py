"""`python -m tests.fuzz`: many mutated inputs per target; a table, and the inputs that broke
something, to be kept in tests/fuzz/cases as TARGET.WHAT-IT-SHOWS."""

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.connections import fuzz_connections, fuzz_lies
from tests.fuzz.mutation import mutate
from tests.fuzz.targets import REFUSALS, TARGETS

INPUT_CPU_S = 10.0
"""An input that takes more breaks something."""
BYTES_MAX = 3 << 30
"""Of address space, some for libraries: an input that needs more breaks something."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes more CPU."""

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s of CPU")

    before = signal.signal(signal.SIGVTALRM, too_slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def fuzz(name: str, seed: int, first: int, inputs: int) -> tuple[Counter[str], dict[str, bytes]]:
    """How the inputs fared, and one input per way to break. An input is a function of the target,
    the seed and its number."""
    target, told, broken = TARGETS[name], Counter[str](), dict[str, bytes]()
    seeds = target.seeds()
    for number in range(first, first + inputs):
        rng = random.Random(f"{name} {seed} {number}")
        data = mutate(rng.choice(seeds), seeds, rng)
        try:
            with within(INPUT_CPU_S):
                target.run(data)
            told["accepted"] += 1
        except REFUSALS as error:
            told[type(error).__name__] += 1
        except Exception as error:
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
            told["broken"] += 1
            broken.setdefault(f"{type(error).__name__} at {line}", data)
        if sys.stderr.isatty() and number % 1000 == 0:
            print(f"\r{name} {number - first} of {inputs} ", end="", file=sys.stderr)
    return told, broken


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="per target (1000)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="these; all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="first number (0)")
    parser.add_argument("--keep", type=Path, help="directory for inputs that broke something")
    parser.add_argument(
        "--connections", type=int, help="instead: so many to the ports of a running replica"
    )
    parser.add_argument("--lies", type=int, help="instead: so many of a member that lies")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES_MAX, BYTES_MAX))
    if chosen.connections or chosen.lies:
        with tempfile.TemporaryDirectory() as directory:
            if chosen.connections:
                print(fuzz_connections(chosen.first, chosen.connections, Path(directory)))
            else:
                print(fuzz_lies(chosen.first, chosen.lies, Path(directory)))
        return 0
    failed, whole, began = 0, 0, time.monotonic()
    for name in chosen.target or TARGETS:
        start = time.monotonic()
        told, broken = fuzz(name, chosen.seed, chosen.first, chosen.inputs)
        whole += chosen.inputs
        failed += told["broken"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        said = ", ".join(f"{what} {count:,}" for what, count in sorted(told.items()))
        took = time.monotonic() - start
        print(f"{name:18} {chosen.inputs:9,}  {took:6.1f} s  {peak:5} MiB  {said}", flush=True)
        for number, (what, data) in enumerate(broken.items()):
            print(f"    {what}: {data[:120]!r}")
            if chosen.keep:
                (chosen.keep / f"{name}.{number}").write_bytes(data)
    print(f"{whole:,} inputs in {time.monotonic() - began:.0f} s, {failed:,} broke something")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
