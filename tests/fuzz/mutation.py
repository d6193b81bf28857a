"""Valid inputs made wrong: a function of the seed's bytes and of a random number generator."""

import random

WORDS = (
    b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0",
    b"18446744073709551616", b"9" * 400, b"\xff\xfe",
    b"\x00", b"\xc3", b"'", b'"', b"[", b"{", b"[" * 200, b"{" * 200, b"]", b"}", b"=", b",", b":",
    b"\n", b"\r\n", b"%", b"%00", b"%ff", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7), b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\x91" * 200, b"\xc0", b"\xe2\x80\xae", b"\xef\xbb\xbf",
    "\u0663".encode(),
)  # fmt: skip
"""What parsers stumble over: numbers, brackets, text that is none, lengths that lie."""


def mutate(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """One input: a seed after one to four changes."""
    for _ in range(rng.randint(1, 4)):
        data = _change(data, seeds, rng)
    return data


def _change(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.randint(1, 1 << rng.randrange(8)))
    roll = rng.randrange(8)
    if roll == 0 and at < len(data):  # A bit.
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if roll == 1:  # Torn.
        return data[:at]
    if roll == 2:  # A piece is missing.
        return data[:at] + data[end:]
    if roll == 3:  # A piece stands there twice.
        return data[:end] + data[at:end] + data[end:]
    if roll == 4:  # The end of another.
        other = rng.choice(seeds)
        return data[:at] + other[rng.randrange(len(other) + 1) :]
    if roll == 5:
        return data[:at] + rng.randbytes(end - at) + data[end:]
    if roll == 6:
        return _numbers(data, at, rng)
    return data[:at] + rng.choice(WORDS) + (data[end:] if rng.random() < 0.5 else data[at:])


def _numbers(data: bytes, at: int, rng: random.Random) -> bytes:
    """Another whole number, of 1 to 8 bytes: a length, a count, a version."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1, rng.getrandbits(8 * size)))
    return data[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]
