"""No error is lost: nothing is caught without a name, and nothing caught is dropped unexplained."""

import ast

import pytest

from tests.house.sources import CODE, modules, named, tree

BLANKET = {"Exception", "BaseException"}
FLOORS_WITHOUT_BLANKETS = ("core", "protocols", "execution")


def handlers(path):
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]


def names(handler):
    return {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}


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


@pytest.mark.parametrize("path", modules(*CODE), ids=named)
def test_nothing_is_caught_without_a_name(path):
    assert not [handler.lineno for handler in handlers(path) if handler.type is None]


@pytest.mark.parametrize("path", modules(*CODE), ids=named)
def test_what_is_dropped_is_explained(path):
    dropped = [
        handler.lineno
        for handler in handlers(path)
        if all(isinstance(node, ast.Pass) for node in handler.body)
        and not is_explained(path, handler)
    ]
    assert not dropped


@pytest.mark.parametrize("path", modules(*CODE), ids=named)
def test_a_blanket_raises_again_hands_on_or_says_why_not(path):
    blankets = [
        handler
        for handler in handlers(path)
        if handler.type is not None and names(handler) & BLANKET
    ]
    silent = [
        handler.lineno
        for handler in blankets
        if not any(isinstance(node, ast.Raise) for node in ast.walk(handler))
        and not is_handed_on(handler)
        and not is_explained(path, handler)
    ]
    assert not silent
    if any(part in FLOORS_WITHOUT_BLANKETS for part in path.parts):
        assert not blankets
