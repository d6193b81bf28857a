"""All studies, by name, in the order in which they are drawn.

Rules of this file: a list; each study stands in a module of bench/experiments.
"""

from collections.abc import Sequence
from typing import Final

from bench.figures.plan import Study
from bench.figures.studies import (
    how_long_is_the_tail,
    how_often_do_commands_conflict,
    what_do_conflicts_cost_in_throughput,
    what_does_a_site_see,
    what_does_a_slow_replica_cost,
    what_does_batching_buy,
    what_does_load_do_to_a_hot_key,
    what_does_locality_buy,
    what_happens_when_a_region_fails,
)
from epaxos.core.errors import ConfigError
from topology.regions import suggestion

STUDIES: Final[tuple[Study, ...]] = (
    what_does_a_site_see.STUDY,
    what_do_conflicts_cost_in_throughput.STUDY,
    what_does_batching_buy.STUDY,
    what_does_a_slow_replica_cost.STUDY,
    what_happens_when_a_region_fails.STUDY,
    how_long_is_the_tail.STUDY,
    what_does_load_do_to_a_hot_key.STUDY,
    how_often_do_commands_conflict.STUDY,
    what_does_locality_buy.STUDY,
)


def find_studies(names: Sequence[str]) -> list[Study]:
    """Those with these names, in the order of the list; all for none. Raises ConfigError."""
    known = {study.name: study for study in STUDIES}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no figure {name!r}{suggestion(name, known)}; choose among "
                f"{', '.join(known)}"
            )
    return [study for study in STUDIES if not names or study.name in names]
