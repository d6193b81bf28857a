"""The numbers that papers print, as far as they were read, with how they were read.

SOSP 2013, Figure 4: medians and 99th percentiles by pixel from a copy of the figure, medians within
3 ms, percentiles within 10 ms; they stand in topology/data/sosp13-figure4.json. Figures 5 and 6:
commands per second, partly by pixel. NSDI 2021: what its abstract says.

Rules of this file: only what somebody read in a paper; what is missing stays missing.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

MEDIAN_READ_MS: Final = 3.0
"""How far a median read from Figure 4 may be off."""

THROUGHPUT: Final = {
    (3, "epaxos", 0): 53_000,
    (3, "epaxos", 2): 46_250,
    (3, "epaxos", 25): 43_750,
    (3, "epaxos", 100): 45_250,
    (3, "multipaxos", 0): 40_200,
    (5, "epaxos", 0): 51_250,
    (5, "epaxos", 2): 48_125,
    (5, "epaxos", 25): 41_875,
    (5, "epaxos", 100): 31_250,
    (5, "multipaxos", 0): 27_200,
}
"""SOSP 2013, Figures 5 and 6: commands/s in one data centre without batching, commands of 16 bytes;
by number of replicas, protocol and percent of conflicts."""
WITH_A_SLOW_REPLICA: Final = {
    ("epaxos", 0): 35_625,
    ("epaxos", 100): 21_000,
    ("multipaxos", 0): 8_500,
}
"""The same of five replicas, one of them slow; Multi-Paxos: its leader."""


@cache
def figure_4() -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """`three_sites` and `five_sites` -> series -> site -> median and 99th percentile in ms."""
    text = files("topology").joinpath("data", "sosp13-figure4.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    published: dict[str, Any] = document["published"]
    return {
        sites: {
            series: {site: (pair[0], pair[1]) for site, pair in by_site.items()}
            for series, by_site in published[sites].items()
        }
        for sites in ("three_sites", "five_sites")
    }
