"""The dependency graph: from a replica's answer to files that other programs read."""

import http.server
import io
import json
import threading
from contextlib import contextmanager

import networkx as nx
import pytest

from epaxos.cli.exits import ExitCode
from epaxos.cli.graph import OUTSIDE, GraphFormat, dependency_graph, render, summarize
from epaxos.cli.main import run
from epaxos.core.errors import CodecError


def instance(name, keys=("x",), status="executed", nop=False):
    return {"id": name, "deps": {}, "keys": list(keys), "status": status, "nop": nop}


DOCUMENT = {
    "replica": "A",
    "instances": [
        instance("A.1"),
        instance("B.1", ["x", 'q"<\\x00'], "committed"),
        instance("C.2", [], nop=True),
        instance("A.2"),
        instance("C.1"),
    ],
    "edges": [["A.1", "C.1"], ["A.1", "B.1"], ["B.1", "A.1"], ["A.2", "B.1"], ["C.2", "D.9"]],
}


def test_graph_has_the_attributes_of_instances():
    graph = dependency_graph(DOCUMENT)
    assert set(graph.edges) == {tuple(edge) for edge in DOCUMENT["edges"]}
    node = graph.nodes["B.1"]
    assert (node["column"], node["slot"], node["status"]) == ("B", 1, "committed")
    assert node["keys"] == 'x, q"<\\x00'
    assert graph.nodes["C.2"]["nop"]
    assert graph.nodes["D.9"]["status"] == OUTSIDE


def test_components_are_numbered_in_an_order_of_execution():
    graph = dependency_graph(DOCUMENT)
    component = dict(graph.nodes(data="component"))
    assert component["A.1"] == component["B.1"]
    assert component["C.1"] < component["A.1"] < component["A.2"]
    assert component["D.9"] < component["C.2"]
    assert graph.nodes["A.1"]["component_size"] == 2
    for source, target in graph.edges:
        assert component[target] <= component[source]


def test_summary():
    summary = summarize(DOCUMENT, dependency_graph(DOCUMENT))
    assert summary["instances"] == 6
    assert summary["components"] == 5
    assert summary["components_larger_than_one"] == 1
    assert summary["largest_component"] == {"size": 2, "instances": ["A.1", "B.1"]}
    assert summary["statuses"] == {"executed": 4, "committed": 1, OUTSIDE: 1}
    empty = {"replica": "A", "instances": [], "edges": []}
    assert summarize(empty, dependency_graph(empty))["largest_component"]["size"] == 0


@pytest.mark.parametrize(
    ("form", "read"), [(GraphFormat.GRAPHML, nx.read_graphml), (GraphFormat.JSON, None)]
)
def test_written_graph_reads_back(form, read):
    graph = dependency_graph(DOCUMENT)
    content = render(graph, form)
    back = (
        read(io.BytesIO(content))
        if read
        else nx.node_link_graph(json.loads(content), edges="edges")
    )
    assert set(back.edges) == set(graph.edges)
    assert dict(back.nodes(data=True)) == dict(graph.nodes(data=True))


def test_dot_boxes_components_and_escapes_keys():
    text = render(dependency_graph(DOCUMENT), GraphFormat.DOT).decode()
    assert text.startswith("digraph")
    assert text.count("subgraph cluster_") == 1
    assert '"A.2" -> "B.1";' in text
    assert "q&quot;&lt;" in text
    assert "<b>C.2</b><br/>Nop" in text


@pytest.mark.parametrize("key", ["\x00", "\x01", "a\nb", "\ud800", "\ufffe", "\x7f", "\u2028"])
def test_every_key_is_written_so_that_readers_take_it(key):
    graph = dependency_graph({**DOCUMENT, "instances": [instance("A.1", [key])]})
    content = render(graph, GraphFormat.GRAPHML)
    read = nx.read_graphml(io.BytesIO(content)).nodes["A.1"]["keys"]
    assert read == graph.nodes["A.1"]["keys"]
    assert read.isprintable()
    assert read.startswith(("\\", "a\\n"))
    dot = render(graph, GraphFormat.DOT).decode()
    assert all(line.isprintable() for line in dot.splitlines())


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [{"id": 'A.1"; x="', "status": "committed"}], "edges": []},
        {"instances": [{"id": "\x01.1", "status": "committed"}], "edges": []},
        {},
        {"instances": [], "edges": 3},
        {"instances": [{"id": "nonsense"}], "edges": []},
        {"instances": [], "edges": [["A.1", "B.x"]]},
    ],
)
def test_something_else_is_refused(document):
    with pytest.raises(CodecError, match="not a dependency graph"):
        dependency_graph(document)


@contextmanager
def replica(status=200, body=None):
    content = json.dumps(DOCUMENT).encode() if body is None else body

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            """Keep the test's output clean."""

    paths = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()
            thread.join()


def test_command_prints_a_summary_and_writes_a_file(tmp_path, capsys):
    out = tmp_path / "g.graphml"
    with replica() as (at, paths):
        assert run(["graph", "--at", at, "--out", str(out), "--limit", "7"]) == ExitCode.OK
    assert paths == ["/v1/graph?limit=7"]
    assert nx.read_graphml(out).number_of_nodes() == 6
    shown = capsys.readouterr()
    assert "larger than one" in shown.out
    assert f"written to {out}" in shown.out
    assert shown.err == ""


def test_graph_to_stdout_keeps_the_summary_out_of_it(capfdbinary):
    with replica() as (at, _):
        assert run(["graph", "--at", f"http://{at}/", "--format", "json"]) == ExitCode.OK
    shown = capfdbinary.readouterr()
    assert len(json.loads(shown.out)["nodes"]) == 6
    assert b"components" in shown.err


def test_summary_as_json(capsys):
    with replica() as (at, _):
        assert run(["graph", "--at", at, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["components"] == 5


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        ({"body": b"<html>"}, ExitCode.FAILED, "JSON"),
        ({"body": b"[1]"}, ExitCode.FAILED, "JSON object"),
        ({"body": b"{}"}, ExitCode.FAILED, "not a dependency graph"),
        (
            {"status": 503, "body": b'{"title": "Not now", "detail": "it restores"}'},
            ExitCode.FAILED,
            "503 Service Unavailable: Not now: it restores",
        ),
        ({"status": 404, "body": b"gone"}, ExitCode.FAILED, "404 Not Found"),
    ],
)
def test_answers_that_are_no_graph(capsys, answer, code, word):
    with replica(**answer) as (at, _):
        assert run(["graph", "--at", at]) == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert word in shown


def test_an_answer_without_end_is_not_read_to_its_end(capsys, monkeypatch):
    monkeypatch.setattr("epaxos.http_client.ANSWER_BYTES_MAX", 100)
    with replica() as (at, _):
        assert run(["graph", "--at", at]) == ExitCode.FAILED
    assert "more than 100 bytes" in capsys.readouterr().err


def test_nobody_there(capsys):
    with replica() as (at, _):
        pass
    assert run(["graph", "--at", at]) == ExitCode.ADDRESS
    assert "--at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--at", "ftp://x"], "--at"),
        (["--at", "a b"], "--at"),
        (["--out", "x.png"], ".graphml"),
        (["--format", "png"], "graphml"),
        (["--limit", "0"], "--limit"),
        (["--json", "--format", "dot"], "--out"),
    ],
)
def test_wrong_options(capsys, arguments, word):
    assert run(["graph", *arguments]) == ExitCode.CONFIG
    assert word in capsys.readouterr().err


def test_unwritable_file_is_named(capsys, tmp_path):
    with replica() as (at, _):
        assert run(["graph", "--at", at, "--out", str(tmp_path / "no" / "g.dot")]) == 2
    assert "no/g.dot" in capsys.readouterr().err
