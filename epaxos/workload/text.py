"""A workload as text: `conflict:2,pool=10`, `zipf:theta=0.9`, `package.module:Class,keys=7`.

    WORKLOAD   NAME | NAME:SETTINGS | MODULE:CLASS | MODULE:CLASS,SETTINGS
    SETTINGS   NAME=VALUE, NAME=VALUE, ...; the first one of some kinds without its name

Rules of this file: what is wrong is said with the name of the setting and with what is allowed.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any, Final, get_args, get_type_hints

from epaxos.core.errors import ConfigError
from epaxos.core.numbers import plain
from epaxos.extensions import entry_names, is_place, load_entry, load_place
from epaxos.workload.base import Normal, Uniform, Workload, name_of, settings_of
from epaxos.workload.kinds import Conflict, Hot, Local, Zipf
from epaxos.workload.ycsb import YcsbA, YcsbB, YcsbC, YcsbD, YcsbF

GROUP: Final = "epaxos.workloads"
"""The entry points that are workloads."""
BUILT_IN: Final[dict[str, type[Workload]]] = {
    each.kind: each for each in (Conflict, Zipf, YcsbA, YcsbB, YcsbC, YcsbD, YcsbF, Hot, Local)
}
_COMMA: Final = re.compile(r",(?![^(]*\))")
"""A comma that is not in parentheses."""
_SIZE: Final = re.compile(r"(uniform|normal)\(([^,()]+),([^,()]+)\)")


def workload_names() -> list[str]:
    """The names a workload may begin with: those of this package, then those of installed ones."""
    return [*BUILT_IN, *(each for each in entry_names(GROUP) if each not in BUILT_IN)]


def parse_workload(text: str, seed: int = 1, regions: Sequence[str] = ()) -> Workload:
    """The workload that a text means. `regions` are those with clients, for kinds in which a region
    has keys of its own.

    Raises ConfigError that names the setting and says what is allowed."""
    head, _, rest = text.strip().partition(":")
    words = [word.strip() for word in _COMMA.split(rest)] if rest else []
    cls = BUILT_IN.get(head)
    if cls is None and words and is_place(f"{head}:{words[0]}"):
        head = f"{head}:{words.pop(0)}"
        cls = _checked(head, load_place(head))
    elif cls is None:
        cls = _checked(head, load_entry(GROUP, head))
    return cls(**_settings(cls, words), seed=seed, regions=tuple(regions))


def _checked(name: str, found: Any) -> type[Workload]:
    """A class from outside. Raises ConfigError."""
    if found is None:
        raise ConfigError(
            f"unknown workload {name!r}; write one of {', '.join(workload_names())}, or "
            "package.module:Class"
        )
    if not (inspect.isclass(found) and issubclass(found, Workload)):
        raise ConfigError(
            f"workload {name} is not a class that inherits from epaxos.workload.Workload"
        )
    if "__dataclass_fields__" not in vars(found):
        raise ConfigError(f"workload {name}: write @dataclass(frozen=True, kw_only=True) above it")
    if found.draw is Workload.draw:
        raise ConfigError(f"workload {name} has no method draw(self, client)")
    common = {each.name for each in settings_of(Workload)}
    for each in settings_of(found):
        if each.name not in common and hasattr(Workload, each.name):
            raise ConfigError(f"workload {name}: call its setting {each.name!r} something else")
    return found


def _settings(cls: type[Workload], words: list[str]) -> dict[str, Any]:
    fields = {each.name: each for each in settings_of(cls)}
    hints = get_type_hints(cls)
    found: dict[str, Any] = {}
    for position, word in enumerate(words):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals and position == 0 and cls.leading:
            name, value = cls.leading, name
        elif not equals:
            raise ConfigError(
                f"workload {name_of(cls)}: write {word!r} as NAME=VALUE; {_known(cls)}"
            )
        if name not in fields:
            raise ConfigError(f"workload {name_of(cls)} has no setting {name!r}; {_known(cls)}")
        if name in found:
            raise ConfigError(f"workload {name_of(cls)}: {name} is set twice")
        found[name] = _value(f"workload {name_of(cls)}: {name}", value, hints[name])
    for name, each in fields.items():
        if name not in found and each.default is MISSING and each.default_factory is MISSING:
            example = f"{name_of(cls)}:2" if name == cls.leading else f"{name}=..."
            raise ConfigError(f"workload {name_of(cls)} needs {name}: write {example}")
    return found


def _known(cls: type[Workload]) -> str:
    return f"its settings are {', '.join(each.name for each in settings_of(cls))}"


def _value(what: str, text: str, hint: Any) -> Any:
    """A setting's value, by the type that its class declares."""
    kinds = get_args(hint) or (hint,)
    if Uniform in kinds:
        return _size(what, text)
    if bool in kinds:
        if text not in ("true", "false"):
            raise ConfigError(f"{what} = {text!r} must be true or false")
        return text == "true"
    if str in kinds:
        return text
    kind = int if int in kinds else float
    try:
        return kind(plain(text))
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{what} = {text!r} is not {word}") from None


def _size(what: str, text: str) -> int | Uniform | Normal:
    try:
        shaped = _SIZE.fullmatch(text)
        if shaped is None:
            return int(plain(text))
        if shaped[1] == "uniform":
            return Uniform(int(plain(shaped[2])), int(plain(shaped[3])))
        return Normal(float(plain(shaped[2])), float(plain(shaped[3])))
    except ValueError:
        raise ConfigError(
            f"{what} = {text!r} is not a size in bytes; write 16, uniform(16,1024) or "
            "normal(256,64)"
        ) from None
