"""Damage to files: by accident, as a disk does it, and on purpose, by one who knows the format."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Rng = np.random.Generator

NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
    10**20,
)
TOKENS = (
    *(b"", b"\0", b"\xff", b"\n", b"\r", b"\r\n\r\n", b",", b"\t", b'"', b'""', b"'", b"%", b"#", b"{", b"[", b"("),
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"1e999",
        b"-1",
        b"1_0",
        b"0x10",
        b"1,5",
        b"\xef\xbb\xbf",
        b"\x1b[2J",
        "\u202e\u2028".encode(),
    ),
    *(
        b"|O",
        b"O8",
        b"<U9",
        b"|V8",
        b"<M8[s]",
        b"<c16",
        b"[('a','<f8')]",
        b"<f16",
        b"|S0",
        b"True",
        b"None",
        b"__import__",
    ),
    *(b"complex", b"pattern", b"hermitian", b"symmetric", b"skew-symmetric", b"array", b"coordinate", b"integer"),
    *(b"\x80\x04", b"PK\x03\x04", b"PK\x05\x06", b"OHDR", b"TREE", b"SNOD", b"HEAP", b"FRHP", b"\x89HDF\r\n\x1a\n"),
    *(b"II*\0", b"MM\0*", b"GIF89a", b"RIFF", b"\xff\xd8", b"IDAT", b"acTL", b"iCCP", b"zTXt", b"../../", b"/"),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        "NaN",
        "\x1b[2J",
        "|O",
        "<U4",
        "float64",
        "string",
        "bytes",
        "pickle",
        "gzip",
        "/etc",
    ),
    *([], {}, [[]], [0], [-1], {"name": "x"}, {"": None}, 0.5, 1e308, float("nan"), float("inf"), -0.0),
)


def damaged(content: bytes, rng: Rng, other: bytes) -> bytes:
    """The content with one kind of damage or a few; `other` is that of a file of the same kind."""
    for _ in range(int(rng.geometric(0.6))):
        if content.lstrip()[:1] == b"{" and rng.random() < 0.7:
            content = _json(content, rng)
            continue
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        content = change(content, rng, other)
    return content


def _at(content: bytes, rng: Rng) -> int:
    """A place, more often near the beginning, where formats declare what follows."""
    end = len(content) + 1
    return int(rng.integers(min(end, 200) if rng.random() < 0.5 else end))


def _flip(content: bytes, rng: Rng, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9)) if changed else 0):
        changed[min(_at(content, rng), len(changed) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _overwrite(content: bytes, rng: Rng, other: bytes) -> bytes:
    i = _at(content, rng)
    new = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype="uint8"))
    return content[:i] + new + content[i + len(new) :]


def _cut(content: bytes, rng: Rng, other: bytes) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def _leave_out(content: bytes, rng: Rng, other: bytes) -> bytes:
    i = _at(content, rng)
    return content[:i] + content[i + int(rng.geometric(0.1)) :]


def _repeat(content: bytes, rng: Rng, other: bytes) -> bytes:
    i = _at(content, rng)
    j = i + int(rng.geometric(0.05))
    return content[:i] + content[i:j] * int(rng.choice([2, 3, 50])) + content[j:]


def _splice(content: bytes, rng: Rng, other: bytes) -> bytes:
    return content[: _at(content, rng)] + other[_at(other, rng) :]


def _insert(content: bytes, rng: Rng, other: bytes) -> bytes:
    i, token = _at(content, rng), TOKENS[int(rng.integers(len(TOKENS)))]
    return content[:i] + token + content[i + len(token) * int(rng.integers(2)) :]


def _binary_number(content: bytes, rng: Rng, other: bytes) -> bytes:
    size = int(rng.choice([1, 2, 4, 8]))
    number = NUMBERS[int(rng.integers(len(NUMBERS)))] % 256**size
    i = _at(content, rng)
    i -= i % size if rng.random() < 0.7 else 0
    return content[:i] + number.to_bytes(size, "little" if rng.random() < 0.7 else "big") + content[i + size :]


def _written_number(content: bytes, rng: Rng, other: bytes) -> bytes:
    """Another number where one is written in digits: a shape, a size, an entry."""
    there = list(re.finditer(rb"-?\d+", content[: 10**5]))
    if not there:
        return content
    found = there[
        min(int(rng.geometric(0.1)) - 1, len(there) - 1) if rng.random() < 0.7 else int(rng.integers(len(there)))
    ]
    number = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return content[: found.start()] + str(number).encode() + content[found.end() :]


CHANGES: tuple[Callable[[bytes, Rng, bytes], bytes], ...] = (
    *(_flip, _overwrite, _cut, _leave_out, _repeat, _splice, _insert, _insert),
    *(_binary_number, _binary_number, _written_number, _written_number),
)


def _json(content: bytes, rng: Rng) -> bytes:
    """JSON with one of its values replaced, left out, copied elsewhere, or buried deep."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return content
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(tree)
    if not places:
        return content
    holder, key = places[int(rng.integers(len(places)))]
    way = rng.random()
    if way < 0.4:
        holder[key] = VALUES[int(rng.integers(len(VALUES)))]
    elif way < 0.65:
        holder[key] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    elif way < 0.8:
        del holder[key]
    elif way < 0.95:
        source, name = places[int(rng.integers(len(places)))]
        holder[key] = json.loads(json.dumps(source[name])) if name in source or isinstance(source, list) else None
    else:
        text = json.dumps(tree)
        return text.replace(json.dumps(holder[key]), "[" * 10**5 + "]" * 10**5, 1).encode()
    return json.dumps(tree).encode()
