"""Comparison, load and experiments: `from bench import Experiment, Results`.

Rules of this file: it imports nothing until it is asked for a name; every start of a load process
pays for what stands here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.trials.experiment import Experiment
    from bench.trials.results import Results

__all__ = ["Experiment", "Results"]


def __getattr__(name: str) -> Any:
    if name == "Experiment":
        from bench.trials.experiment import Experiment

        return Experiment
    if name == "Results":
        from bench.trials.results import Results

        return Results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
