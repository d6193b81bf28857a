"""The part of EDN that histories are written in: maps, vectors, lists, sets, texts, numbers, names.

Keywords and symbols become `Name`s, so that `:ok` is no text. A tag before a map (a record of
Clojure's) is skipped, `#_` skips what follows, and `;` the rest of a line.

Rules of this file: text in, values out; what is wrong is a ConfigError that names the line.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from epaxos.core.errors import ConfigError

_TOKEN: Final = re.compile(
    r"""[\s,]+ | ;[^\n]* | (?P<text>"(?:[^"\\]|\\.)*") | (?P<open>\#\{|[\[({]) | (?P<close>[\])}])
      | (?P<skip>\#_) | (?P<tag>\#[A-Za-z][^\s,\[\](){}"]*) | (?P<char>\\\S+)
      | (?P<word>[^\s,\[\](){}";\#][^\s,\[\](){}";]*)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_CLOSES: Final = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_DEEP_MAX: Final = 50
_WORDS: Final = {"nil": None, "true": True, "false": False}


class Name(str):
    """A keyword without its colon, or a symbol."""

    __slots__ = ()


class _Skip(str):
    """Stands for `#_`."""

    __slots__ = ()


def read_edn(text: str) -> Iterator[tuple[int, Any]]:
    """The values of a text with the number of the line that each ends in. Raises ConfigError."""
    stack: list[tuple[str, list[Any]]] = []
    skips = line = 0
    at, line = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ConfigError(f"line {line}: {text[at : at + 20]!r} is no EDN")
        at, token = found.end(), found[0]
        line += token.count("\n")
        kind = found.lastgroup
        if kind in (None, "tag"):
            continue
        if kind == "open":
            stack.append((token, []))
            if len(stack) > _DEEP_MAX:
                raise ConfigError(f"line {line}: brackets are nested more than {_DEEP_MAX} deep")
            continue
        if kind == "skip":
            value: Any = _Skip()
        elif kind == "close":
            value = _close(stack, token, line)
        else:
            value = _atom(kind or "", token)
        if stack:
            _add(stack[-1][1], value)
        elif isinstance(value, _Skip):
            skips += 1
        elif skips:
            skips -= 1
        else:
            yield line, value
    if stack:
        raise ConfigError(f"line {line}: a {stack[-1][0]} is not closed")


def _add(items: list[Any], value: Any) -> None:
    if not isinstance(value, _Skip) and items and isinstance(items[-1], _Skip):
        items.pop()
    else:
        items.append(value)


def _close(stack: list[tuple[str, list[Any]]], token: str, line: int) -> Any:
    opened, items = stack.pop() if stack else ("", [])
    if _CLOSES.get(opened) != token:
        raise ConfigError(f"line {line}: a {token} closes nothing")
    if opened != "{":
        return items
    if len(items) % 2:
        raise ConfigError(f"line {line}: a map has a key without a value")
    keys = items[::2]
    if any(isinstance(key, list | dict) for key in keys):
        keys = [repr(key) for key in keys]
    return dict(zip(keys, items[1::2]))


def _atom(kind: str, token: str) -> Any:
    if kind == "text":
        return re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[1]), token[1:-1])
    if kind == "char":
        return token[1:]
    if token in _WORDS:
        return _WORDS[token]
    if re.fullmatch(r"[+-]?\d+N?", token):
        return int(token.rstrip("N")) if len(token) < 1000 else token
    return Name(token.removeprefix(":"))
