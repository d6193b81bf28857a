"""Values of message and record classes, drawn field by field from their types."""

import types
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from epaxos.core.command import Batch, Operation, Payload

commands = st.lists(
    st.tuples(st.sampled_from(Operation), st.binary(max_size=6), st.binary(max_size=6)), max_size=4
)


@st.composite
def payloads(draw):
    found = draw(commands)
    return Payload.of(
        Batch(
            draw(st.integers(0, 8)),
            draw(st.integers(0, 2**63)),
            bytes(code for code, _, _ in found),
            [key for _, key, _ in found],
            [argument for _, _, argument in found],
        )
    )


def values(hint, numbers, lengths):
    """What a field of that type may hold; without `numbers`, any integers within its range."""
    if get_origin(hint) is Annotated:
        inside, *limits = get_args(hint)
        if inside is int:
            return within(*limits) if numbers is None else numbers
        return values(inside, numbers, lengths)
    if hint is Payload:
        return payloads()
    if hint is int:
        return within() if numbers is None else numbers
    inside = get_args(hint)
    if get_origin(hint) is list:
        return st.lists(values(inside[0], numbers, lengths), max_size=3)
    if get_origin(hint) is tuple and inside[-1] is Ellipsis:
        return lengths.flatmap(lambda n: st.tuples(*[values(inside[0], numbers, lengths)] * n))
    if get_origin(hint) is tuple:
        return st.tuples(*(values(each, numbers, lengths) for each in inside))
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(*(values(each, numbers, lengths) for each in inside))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return structs_of(hint, numbers, lengths)
    return st.from_type(hint)


def within(*limits):
    """Integers within the limits of a type, or all that have an encoding."""
    least, most = -(2**63), 2**64 - 1
    for limit in limits:
        least = least if limit.ge is None else limit.ge
        most = most if limit.le is None else limit.le
        most = most if limit.lt is None else limit.lt - 1
    return st.integers(least, most)


def structs_of(kind, numbers, lengths):
    """Any value of a message or record class: its integers, and the lengths of its vectors."""
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(
        kind, *(values(hints[name], numbers, lengths) for name in kind.__struct_fields__)
    )
