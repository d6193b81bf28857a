"""No error is lost: nothing is caught without a name, and nothing caught is dropped unexplained."""

import ast

import pytest

from tests.house.sources import CODE, modules, objections, offenders, tree

BLANKET = {"Exception", "BaseException"}
FLOORS_WITHOUT_BLANKETS = ("core", "protocols", "execution")


def handlers(path):
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]


def is_blanket(handler):
    return handler.type is not None and any(
        isinstance(node, ast.Name) and node.id in BLANKET for node in ast.walk(handler.type)
    )


def is_explained(path, handler):
    """A comment in the handler, or right above it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return any("#" in line for line in lines[handler.lineno - 2 : handler.end_lineno])


def is_handed_on(handler):
    """The exception itself is given to somebody."""
    return handler.name is not None and any(
        isinstance(node, ast.Name) and node.id == handler.name
        for call in ast.walk(handler)
        if isinstance(call, ast.Call)
        for node in ast.walk(call)
    )


def lost(path):
    """Handlers that catch without a name, drop without a reason, or keep a blanket's catch."""
    for handler in handlers(path):
        explained = is_explained(path, handler)
        if handler.type is None:
            yield handler.lineno, "caught without a name"
        if all(isinstance(node, ast.Pass) for node in handler.body) and not explained:
            yield handler.lineno, "dropped without a reason"
        if is_blanket(handler):
            if any(part in FLOORS_WITHOUT_BLANKETS for part in path.parts):
                yield handler.lineno, "a blanket in the floors without I/O"
            raises = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
            if not raises and not is_handed_on(handler) and not explained:
                yield handler.lineno, "a blanket neither raises, nor hands on, nor says why not"


def test_no_error_is_lost():
    assert offenders(lost, modules(*CODE)) == []


@pytest.mark.parametrize(
    ("handler", "sentences"),
    [
        ("except:\n    print()", ["3: caught without a name"]),
        ("except OSError:\n    pass", ["3: dropped without a reason"]),
        ("except OSError:\n    pass  # gone is what was wanted", []),
        ("# Gone is what was wanted.\nexcept OSError:\n    pass", []),
        ("except (OSError, Exception):\n    print()", ["3: a blanket neither"]),
        ("except BaseException as error:\n    print()", ["3: a blanket neither"]),
        ("except Exception:\n    raise", []),
        ("except Exception as error:\n    print(error)", []),
        ("except Exception:\n    print()  # the next one may work", []),
    ],
)
def test_a_lost_error_is_named(tmp_path, handler, sentences):
    found = objections(lost, tmp_path, f"try:\n    run()\n{handler}\n")
    assert len(found) == len(sentences)
    assert all(said.startswith(start) for said, start in zip(found, sentences))


def test_a_blanket_below_the_runtime_is_named_whatever_it_does(tmp_path):
    text = "try:\n    run()\nexcept Exception as error:\n    raise SystemExit from error\n"
    assert objections(lost, tmp_path, text, "epaxos/runtime/wal.py") == []
    assert objections(lost, tmp_path, text, "epaxos/core/wal.py") == [
        "3: a blanket in the floors without I/O"
    ]
