"""What comes from outside the package: by entry point, or as `package.module:NAME`.

An entry point is how an installed distribution tells a name to everybody. `package.module:NAME`
needs no installation: a module in the current directory, on PYTHONPATH or installed will do.

Rules of this file: whatever happens while somebody else's code is found and loaded becomes a
ConfigError that names where the code is from.
"""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from epaxos.core.errors import ConfigError


def entry_names(group: str) -> list[str]:
    """The names that installed distributions tell in a group, sorted. Loads nothing."""
    return sorted({each.name for each in entry_points(group=group)})


def is_place(text: str) -> bool:
    """Whether `text` is meant as `package.module:NAME`."""
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(map(str.isidentifier, module.split(".")))


@cache
def load_entry(group: str, name: str) -> Any:
    """What an entry point means; None if there is none of that name.

    Raises ConfigError that names the distribution if it cannot be loaded, or if two have it."""
    found = [each for each in entry_points(group=group) if each.name == name]
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(
            f"{name!r} is an entry point {group} of {' and of '.join(map(_owner, found))}; "
            "uninstall one of them"
        )
    try:
        return found[0].load()
    except Exception as error:
        # Whatever it was, it is theirs.
        raise ConfigError(
            f"{name!r}, entry point {group} of {_owner(found[0])}, cannot be loaded from "
            f"{found[0].value}: {type(error).__name__}: {error}"
        ) from None


def load_place(text: str) -> Any:
    """What `package.module:NAME` means; modules in the current directory are found too, last.

    Raises ConfigError."""
    module, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.append("")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{text}: {module} cannot be imported: {error}") from None
        raise ConfigError(
            f"{text}: there is no module {error.name}; start in the directory that holds it, or "
            "name that directory in PYTHONPATH"
        ) from None
    except Exception as error:
        # Whatever it was, it is theirs.
        raise ConfigError(
            f"{text}: {module} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    if not hasattr(loaded, name):
        raise ConfigError(f"{text}: the module {module} has no {name}")
    return getattr(loaded, name)


def _owner(entry: EntryPoint) -> str:
    dist = entry.dist
    return "an unnamed distribution" if dist is None else f"{dist.name} {dist.version}"
