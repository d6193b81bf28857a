"""`python -m tests.fuzz.guided TARGET [options of libFuzzer]`: inputs that lead to lines not yet
run are kept and changed further. Needs atheris, which no other test does: pip install atheris."""

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["epaxos", "bench", "topology"]):
    from tests.fuzz.targets import REFUSALS, TARGETS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    target = TARGETS[name]

    def once(data: bytes) -> None:
        with contextlib.suppress(REFUSALS):
            target.run(data)

    corpus = Path(tempfile.mkdtemp(prefix=f"epaxos-fuzz-{name}-"))
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([*sys.argv, "-rss_limit_mb=3000", "-timeout=20", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
