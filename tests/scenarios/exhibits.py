"""The museum's schedules, played on the code as it is.

An exhibit tells its story once, as a schedule, and plants its bug; `tests/sim/test_museum.py` holds
that the bug is caught on it. Here is what else must come of it where nothing is broken.
"""

import re
from collections import Counter

from epaxos.sim.museum import find
from epaxos.sim.schedule.stage import directed


def played(name):
    """The stage at the end of an exhibit's schedule. No observer has objected."""
    exhibit = find(name)
    search = exhibit.search
    stage = directed(search.replicas, exhibit.protocol, gate=search.gate, tunables=search.tunables)
    search.play(stage)
    stage.check()
    return stage


def values(stage, *members):
    """What these members, dead ones too, know to be decided: instance -> (keys or None, deps)."""
    found = [
        {
            name: value
            for column in "ABCDE"
            for slot in (1, 2)
            if (value := stage.value(member, name := f"{column}.{slot}")) is not None
        }
        for member in members
    ]
    assert all(each == found[0] for each in found), found
    return found[0]


def rules(stage, member):
    """By which rules the recoveries of a member went on, and how often by each."""
    counts = stage.replica(member).statistics()
    return Counter(
        {
            name.removeprefix("recover_rule_"): count
            for name, count in counts.items()
            if name.startswith("recover_rule_") and count
        }
    )


def happened(stage, *events):
    """Whether these stand in the story's chart, in this order."""
    chart = " ".join(re.sub(r"[│├┤┼─▶◀●◆✖]", " ", stage.chart()).split())
    at = 0
    for event in events:
        at = chart.find(event, at)
        assert at >= 0, event
        at += len(event)
    return True
