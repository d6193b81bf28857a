"""`epaxos graph`: the dependency graph of a live replica, for eyes and for other programs.

An edge `A.7 -> B.3` says that A.7 is executed after B.3, or together with it when they are in one
strongly connected component. Components are numbered in an order of execution: 0 comes first.
"""

import html
import io
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import networkx as nx
import orjson
import typer

from epaxos.cli.options import Timeout
from epaxos.cli.output import console, count, make_table, print_json, printable
from epaxos.core.errors import CodecError, ConfigError
from epaxos.core.types import parse_instance, replica_name
from epaxos.http_client import base_url, fetch_json

app = typer.Typer()

OUTSIDE: Final = "outside"
"""Status of an instance that an edge names and the replica did not list: not committed there, or
left out by the limit."""


class GraphFormat(StrEnum):
    """What `write_graph` can write."""

    GRAPHML = "graphml"
    DOT = "dot"
    JSON = "json"


@app.command()
def graph(
    at: Annotated[str, typer.Option(help="HTTP address of the replica.")] = "http://127.0.0.1:8001",
    form: Annotated[
        GraphFormat | None,
        typer.Option(
            "--format", help="What to write; by default what the name of --out ends with."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it, stdout if --format is given.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="At most so many instances, the newest.")
    ] = 1000,
    timeout: Timeout = 10.0,
    json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """The live dependency graph of a replica, with its components.

    Prints a summary, and writes the graph itself where --format or --out asks for it. Nodes are
    committed instances that still matter; an edge leads from an instance to one it depends on."""
    wanted = form or (None if out is None else _format_of(out))
    to_stdout = wanted is not None and out is None
    if json and to_stdout:
        raise ConfigError("--json and the graph cannot both go to stdout; give --out FILE")
    document = fetch_json(f"{base_url(at)}/v1/graph?limit={limit}", timeout)
    dependencies = dependency_graph(document)
    if wanted is not None:
        content = render(dependencies, wanted)
        if out is None:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        else:
            try:
                out.write_bytes(content)
            except OSError as error:
                raise ConfigError(f"--out {out}: {error.strerror}; name another file") from None
    summary = summarize(document, dependencies)
    if json:
        print_json(summary)
    else:
        _print_summary(summary, at, out, stderr=to_stdout)


def _format_of(out: Path) -> GraphFormat:
    try:
        return GraphFormat(out.suffix.removeprefix("."))
    except ValueError:
        endings = ", ".join(f".{form}" for form in GraphFormat)
        raise ConfigError(
            f"--out {out}: the name says no format; end it with one of {endings}, or give --format"
        ) from None


def dependency_graph(document: dict[str, Any]) -> "nx.DiGraph[str]":
    """The graph in an answer of `/v1/graph`.

    Node attributes: `column` and `slot` of the instance, `status`, `nop`, `keys` (as text),
    `component` (number in an order of execution) and `component_size`. Raises CodecError."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    try:
        for instance in document["instances"]:
            name = str(instance["id"])
            graph.add_node(
                name,
                **_place(name),
                status=_printable(instance["status"]),
                nop=bool(instance.get("nop")),
                keys=", ".join(map(_printable, instance.get("keys") or ())),
            )
        for source, target in document["edges"]:
            for name in (source, target):
                if name not in graph:
                    graph.add_node(name, **_place(name), status=OUTSIDE, nop=False, keys="")
            graph.add_edge(source, target)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CodecError(f"the answer is not a dependency graph: {error!r}") from None
    _add_components(graph)
    return graph


def _place(name: str) -> dict[str, Any]:
    replica, slot = parse_instance(name)
    return {"column": replica_name(replica), "slot": slot}


def _printable(text: str) -> str:
    """Text that every reader of a file takes: XML has no place for control characters, not even
    escaped, and Graphviz none for NUL."""
    return printable(text.encode("utf-8", "surrogatepass"))


def _add_components(graph: "nx.DiGraph[str]") -> None:
    condensed = nx.condensation(graph).reverse(copy=False)
    members = condensed.nodes(data="members")
    first = {number: min(_order(name) for name in names) for number, names in members}
    order = nx.lexicographical_topological_sort(condensed, key=first.__getitem__)
    for position, number in enumerate(order):
        names = members[number]
        for name in names:
            graph.nodes[name].update(component=position, component_size=len(names))


def _order(name: str) -> tuple[int, str]:
    column, _, slot = name.rpartition(".")
    return int(slot), column


def render(graph: "nx.DiGraph[str]", form: GraphFormat) -> bytes:
    """The graph as a file's content."""
    if form is GraphFormat.JSON:
        document = nx.node_link_data(graph, edges="edges")
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if form is GraphFormat.DOT:
        return _dot(graph).encode()
    content = io.BytesIO()
    nx.write_graphml_xml(graph, content)
    return content.getvalue() + b"\n"


def _dot(graph: "nx.DiGraph[str]") -> str:
    """Graphviz text; a box around every component larger than one."""
    lines = ["digraph dependencies {", '  node [shape=box, fontname="sans-serif"];']
    components: dict[int, list[str]] = {}
    for name, component in graph.nodes(data="component"):
        components.setdefault(component, []).append(name)
    for component, names in sorted(components.items()):
        nodes = [_dot_node(name, graph.nodes[name]) for name in names]
        if len(names) == 1:
            lines += [f"  {node}" for node in nodes]
        else:
            lines.append(f"  subgraph cluster_{component} {{")
            lines.append(f'    label="component {component}, {len(names)} instances";')
            lines += [f"    {node}" for node in nodes]
            lines.append("  }")
    lines += [f'  "{source}" -> "{target}";' for source, target in graph.edges]
    return "\n".join([*lines, "}", ""])


def _dot_node(name: str, data: dict[str, Any]) -> str:
    what = "Nop" if data["nop"] else data["keys"]
    label = f"<b>{html.escape(name)}</b><br/>{html.escape(what)}" if what else html.escape(name)
    style = {"executed": "solid", OUTSIDE: "dotted"}.get(data["status"], "bold")
    return f'"{name}" [label=<{label}>, style={style}];'


def summarize(document: dict[str, Any], graph: "nx.DiGraph[str]") -> dict[str, Any]:
    """Sizes of the graph and of its components."""
    sizes = Counter(component for _, component in graph.nodes(data="component"))
    largest = max(sizes, key=lambda component: (sizes[component], -component), default=None)
    members = [name for name, c in graph.nodes(data="component") if c == largest]
    return {
        "replica": document.get("replica"),
        "instances": graph.number_of_nodes(),
        "statuses": dict(Counter(status for _, status in graph.nodes(data="status"))),
        "edges": graph.number_of_edges(),
        "components": len(sizes),
        "components_larger_than_one": sum(1 for size in sizes.values() if size > 1),
        "largest_component": {"size": len(members), "instances": sorted(members, key=_order)},
    }


def _print_summary(summary: dict[str, Any], at: str, out: Path | None, *, stderr: bool) -> None:
    screen = console(stderr=stderr)
    screen.print(f"dependency graph of replica {summary['replica']} ({at})")
    if not summary["instances"]:
        screen.print("empty: what is known there has been executed at every replica")
    table = make_table("", ">", "")
    table.show_header = False
    statuses = ", ".join(f"{count(n)} {status}" for status, n in summary["statuses"].items())
    table.add_row("instances", count(summary["instances"]), statuses)
    table.add_row("edges", count(summary["edges"]))
    table.add_row("components", count(summary["components"]))
    table.add_row("  larger than one", count(summary["components_larger_than_one"]))
    largest = summary["largest_component"]
    some = largest["instances"][:8]
    more = " …" if len(some) < largest["size"] else ""
    table.add_row("  largest", count(largest["size"]), " ".join(some) + more)
    screen.print(table)
    if out is not None:
        screen.print(f"written to {out}", soft_wrap=True)
