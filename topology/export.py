"""A topology for other programs: a table, a file to edit, a script that emulates it on real hosts.

Rules of this file: text only; writes nothing itself.
"""

import csv
import io
import json
import re
import shlex

from topology.regions import Topology

_NETEM_HEAD = """\
#!/usr/bin/env bash
# Delays of {title}, for netem on Linux; made from topology {name}.
# Run it on each host as root, with the host's region, and the addresses of the others:
#   {example}
# Undo:  tc qdisc del dev "${{DEV:-eth0}}" root
# Each host delays what it sends by the one-way delay, so that both together make the round trip.
set -euo pipefail
here="${{1:?usage: $0 REGION}}"
dev="${{DEV:-eth0}}"
tc qdisc replace dev "$dev" root handle 1: htb default 1
tc class add dev "$dev" parent 1: classid 1:1 htb rate 10gbit
delay() {{  # number, address of the other, delay, jitter, loss
  [ -n "$2" ] || return 0
  tc class add dev "$dev" parent 1: classid "1:$1" htb rate 10gbit
  # netem reorders packets that are jittered; a rate keeps them in order.
  tc qdisc add dev "$dev" parent "1:$1" netem limit 100000 delay "$3" "$4" loss "$5" rate 10gbit
  tc filter add dev "$dev" parent 1: protocol ip u32 match ip dst "$2/32" flowid "1:$1"
}}
case "$here" in
"""


def to_csv(topology: Topology) -> str:
    """One row per ordered pair: regions, mean round trip, mean and least one-way delay, loss."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["from", "to", "rtt_ms", "one_way_ms", "one_way_floor_ms", "loss"])
    for i, a in enumerate(topology.regions):
        for j, b in enumerate(topology.regions):
            if i != j:
                writer.writerow(
                    [
                        a.name,
                        b.name,
                        f"{topology.rtt_ms(i, j):.3f}",
                        f"{topology.mean_one_way_us(i, j) / 1000:.3f}",
                        f"{topology.one_way_us(i, j) / 1000:.3f}",
                        f"{topology.loss(i, j):g}",
                    ]
                )
    return text.getvalue()


def to_toml(topology: Topology) -> str:
    """A file that `find` reads back: same regions and round trips. Of the jitter only the mean is
    kept, because that is what such a file can say."""
    lines = [f"{key} = {_quoted(getattr(topology, key))}" for key in ("title", "source", "date")]
    for region in topology.regions:
        lines += ["", f"[regions.{_key(region.name)}]", f"title = {_quoted(region.title)}"]
        if region.city:
            lines.append(f"city = {_quoted(region.city)}")
        if region.lat is not None and region.lon is not None:
            lines += [f"lat = {region.lat}", f"lon = {region.lon}"]
    for i, a in enumerate(topology.regions):
        for j, b in enumerate(topology.regions[i + 1 :], i + 1):
            lines += [
                "",
                f"[links.{_key(f'{a.name}-{b.name}')}]",
                f"rtt_ms = {topology.rtt_ms(i, j):.3f}",
                f"jitter_ms = {topology.jitter(i, j).mean_us / 1000:.4f}",
            ]
            if topology.loss(i, j):
                lines.append(f"loss = {topology.loss(i, j):g}")
            if topology.asymmetry[i][j]:
                lines.append(f"asymmetry_ms = {topology.asymmetry[i][j]:g}")
    return "\n".join(lines) + "\n"


def to_netem(topology: Topology) -> str:
    """A bash script for `tc`, to run on each of a cluster's real hosts."""
    variables = _variables(topology)
    others = " ".join(f"{name}=10.0.0.{k + 1}" for k, name in enumerate(variables) if k)
    first = topology.regions[0].name
    lines = [
        _NETEM_HEAD.format(
            title=repr(topology.title)[1:-1],
            name=repr(topology.name)[1:-1],
            example=f"{others} ./netem.sh {shlex.quote(first)}",
        )
    ]
    for i, region in enumerate(topology.regions):
        lines.append(f"{shlex.quote(region.name)})\n")
        for j, name in enumerate(variables):
            if i != j:
                lines.append(
                    f'  delay {10 + j} "${{{name}:-}}" {topology.mean_one_way_us(i, j)}us '
                    f"{topology.jitter(i, j).mean_us:.0f}us {100 * topology.loss(i, j):g}%\n"
                )
        lines.append("  ;;\n")
    known = " ".join(region.name for region in topology.regions)
    lines.append(
        f'*) echo "no region $here; known are" {shlex.quote(known)} >&2; exit 2 ;;\nesac\n'
    )
    return "".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _variables(topology: Topology) -> list[str]:
    """A shell variable for each region's address: `ADDR_us_east_1`; with its position behind it
    where two names would be one."""
    plain = ["ADDR_" + re.sub(r"[^A-Za-z0-9]", "_", region.name) for region in topology.regions]
    if len(set(plain)) == len(plain):
        return plain
    return [f"{name}_{k + 1}" for k, name in enumerate(plain)]
