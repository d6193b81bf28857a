"""`python -m tests.mutation`: run the sweep, or say what is known so far.

Results go to a file of JSON lines outside the tree; a mutant that has one is not run again, unless
it survived and `--again` is given, so that a sweep can be stopped at any time and taken up later.
"""

import argparse
import hashlib
import json
import signal
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

from tests.mutation.mutators import Mutant, mutants_of
from tests.mutation.plan import TARGETS, Target, target_of
from tests.mutation.sandbox import ROOT, copy_tree, judge, move_into

REASONS = Path(__file__).with_name("survivors.toml")
_LIMIT_FACTOR = 3
_LIMIT_FLOOR_S = 15.0


def main() -> int:
    chosen = _parser().parse_args()
    out = Path(chosen.out)
    if out.resolve().is_relative_to(ROOT):
        print("error: --out lies in the checkout; the sweep writes nothing there", file=sys.stderr)
        return 2
    try:
        targets = [target_of(name) for name in chosen.modules] if chosen.modules else [*TARGETS]
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    known = _read(out)
    if chosen.report:
        return _report(targets, known)
    out = out.resolve()
    # A terminated sweep takes its child with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with copy_tree(chosen.commit) as folder:
        tree = Path(folder)
        todo = [
            (target, mutant)
            for target in targets
            for mutant in mutants_of(target.module, (tree / target.module).read_text("utf-8"))
            if _is_chosen(mutant, chosen, known)
        ]
        move_into(tree, [target for target in targets if target in {each for each, _ in todo}])
        return _sweep(tree, todo, chosen.seeds, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.mutation", description=__doc__)
    parser.add_argument("--out", required=True, help="JSON lines with one result each")
    parser.add_argument(
        "--modules", nargs="*", metavar="NAME", help="ends of paths, e.g. quorum.py"
    )
    parser.add_argument("--sample", type=float, default=1.0, help="share of the mutants, by key")
    parser.add_argument("--seeds", type=int, default=100, help="simulated runs per protocol")
    parser.add_argument("--commit", default="HEAD", help="what is copied and damaged")
    parser.add_argument("--again", action="store_true", help="run known survivors again")
    parser.add_argument("--report", action="store_true", help="run nothing; print what is known")
    return parser


def _is_chosen(mutant: Mutant, chosen: argparse.Namespace, known: dict[str, dict]) -> bool:
    result = known.get(mutant.key)
    if result is not None:
        again = ("undecided", "survived") if chosen.again else ("undecided",)
        return result["outcome"] in again
    share = int.from_bytes(hashlib.sha256(mutant.key.encode()).digest()[:4], "big") / 2**32
    return share < chosen.sample


def _sweep(tree: Path, todo: list[tuple[Target, Mutant]], seeds: int, out: Path) -> int:
    counts: Counter[str] = Counter()
    limits: dict[str, float] = {}
    started = time.monotonic()
    for number, (target, mutant) in enumerate(todo):
        if target.module not in limits:
            whole = judge(tree, target, None, seeds, 3_600)
            if whole.outcome != "survived":
                print(f"error: {target.module} undamaged: {whole.by or whole.outcome}")
                return 1
            limits[target.module] = _LIMIT_FLOOR_S + _LIMIT_FACTOR * whole.cpu_s
            print(f"{target.module} undamaged: clean, {whole.cpu_s:.0f} s", flush=True)
        verdict = judge(tree, target, mutant, seeds, limits[target.module])
        counts[verdict.outcome] += 1
        with out.open("a", encoding="utf-8") as file:
            result = {"key": mutant.key, "line": mutant.line, **verdict._asdict()}
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
        done = number + 1
        left = (time.monotonic() - started) / done * (len(todo) - done) / 60
        told = f"{done}/{len(todo)} {dict(counts)} {left:.0f} min left"
        print(f"{told} | {verdict.outcome} {mutant.key} | {verdict.by[:90]}", flush=True)
    return 0


def _read(out: Path) -> dict[str, dict]:
    """The last result of every mutant."""
    if not out.exists():
        return {}
    lines = map(json.loads, out.read_text("utf-8").splitlines())
    return {result["key"]: result for result in lines}


def _report(targets: list[Target], known: dict[str, dict]) -> int:
    """The tables of docs/mutation.md, for the mutants that the modules have today."""
    reasons = tomllib.loads(REASONS.read_text("utf-8"))
    survivors = []
    print("| module | mutants | run | killed | of these by time | survived | killed % |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for target in targets:
        mutants = mutants_of(target.module, (ROOT / target.module).read_text("utf-8"))
        results = [known[mutant.key] for mutant in mutants if mutant.key in known]
        results = [result for result in results if result["outcome"] != "undecided"]
        counts = Counter(result["outcome"] for result in results)
        dead = counts["killed"] + counts["timeout"]
        survivors += [m for m in mutants if known.get(m.key, {}).get("outcome") == "survived"]
        share = f"{100 * dead / len(results):.1f}" if results else "–"
        print(
            f"| `{target.module}` | {len(mutants)} | {len(results)} | {dead} "
            f"| {counts['timeout']} | {counts['survived']} | {share} |"
        )
    print()
    print("| module, line | was → became | why it survives |")
    print("|---|---|---|")
    for mutant in survivors:
        reason = reasons.get(mutant.key, "not looked at")
        where = f"{mutant.module.removeprefix('epaxos/')}:{mutant.line}"
        before, after = (text.replace("|", "\\|") for text in (mutant.before, mutant.after))
        print(f"| {where} | `{before}` → `{after}` | {reason} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
