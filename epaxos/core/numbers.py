"""Numbers that a person wrote, in an option, a URL or a header: one grammar for all of them.

Python's own `int` and `float` also take `+1_0`, blanks, and digits of other scripts; a version that
can be written in two ways is no version.
"""

import re
from typing import Final

WHOLE_MAX: Final = 2**63 - 1
"""No whole number in a version, an instance or an option is larger."""
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_PLAIN: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?(e-?[0-9]{1,3})?")
_SHOWN_MAX: Final = 40


def parse_whole(text: str, low: int = 0, high: int = WHOLE_MAX) -> int:
    """A whole number in ASCII digits, without sign and leading zeros. Raises ValueError with a
    sentence to which the caller adds the name of the field."""
    if _WHOLE.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"{cut(text)} must be a whole number from {low} to {high}")


def plain(text: str) -> str:
    """A text that is a number in ASCII digits, perhaps with a minus, a fraction or an exponent, and
    of a length that anybody would write: what `int` and `float` may be given. Raises ValueError."""
    text = text.strip()
    if _PLAIN.fullmatch(text) is None:
        raise ValueError(f"{cut(text)} is not a number")
    return text


def cut(text: str) -> str:
    """A text as a sentence quotes it: signs that do not print are escaped, and the end of a long
    one is left out."""
    return repr(text) if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]!r}…"
