"""A look into a JSON request body that changes none of its bytes.

Routing needs `model` and `stream`; a public model name may have to give way to
the upstream's. The value is replaced in place, so the place must be certain: the
body is split at the member, and both halves are parsed for a second one. Two
parsers may disagree about which of two members counts, so two are `ambiguous`.

orjson reads 31 KB of messages and tools in 22 µs, a sixth of what any search
with `re` takes, and about what one `bytes.find` takes. What it refuses (lone
surrogates, NaN) or what would be too big to hold is walked token by token.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from msgspec import Struct

# Parsed JSON takes up to 30 times its size (a list of empty lists). Bodies above
# this hold images or files as strings, which the walk skips quickly.
MAX_PARSED = 4 * 1024 * 1024
# The walk takes 0.2 µs for a token. The largest agent sessions have some 10,000
# strings and brackets; a body with this many is made to keep us busy.
MAX_TOKENS = 2_000_000
# `"model"` as a member further inside (a tool's property) looks like ours at first.
# Tools of one request have a handful; after that the walk is the quicker way.
MAX_CANDIDATES = 8

_SPACE = b" \t\n\r"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FIRST = re.compile(rb'\s*\{\s*"model"\s*:\s*(' + _STRING + rb")", re.DOTALL)
_MEMBER = re.compile(rb'"model"\s*:\s*(' + _STRING + rb")", re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_OPEN = re.compile(rb"\s*\{")
_COLON = re.compile(rb"\s*:\s*")
_SCALAR = re.compile(_STRING + rb"|[-+.\w]+", re.DOTALL)

_Span = tuple[int, int]


class Peek(Struct, frozen=True):
    """What a body says; `model_span` is where its model is written, quotes included."""

    model: str | None = None
    model_span: _Span | None = None
    stream: bool | None = None
    ambiguous: bool = False
    values: Mapping[str, Any] = {}


def peek(body: bytes, *keys: str) -> Peek:
    """The model and whether the answer streams; `values` has the top-level `keys` that are there."""
    if len(body) > MAX_PARSED:
        return _walked(body, keys)
    try:
        return _split(body, keys)
    except orjson.JSONDecodeError:
        return _walked(body, keys)


def first_model(body: bytes) -> Peek | None:
    """What `peek` says, from the body's first member alone; None where that is not its model.

    Costs under 1 us whatever the body's size. A second `model` further on goes
    unseen, so this is for where nothing hangs on the name but a figure.
    """
    first = _FIRST.match(body)
    return None if first is None else Peek(_text(first[1]), first.span(1))


def find_top_level(body: bytes, keys: Iterable[str]) -> Mapping[str, Any]:
    """The top-level members of these names, the last one of each."""
    return peek(body, *keys).values


def replace_model(body: bytes, span: tuple[int, int], new: bytes) -> bytes:
    """The body with `new`, a name in UTF-8, as its model; every other byte stays."""
    view = memoryview(body)  # slices of it are no copies: the body may be a hundred megabytes
    return b"".join((view[: span[0]], orjson.dumps(new.decode()), view[span[1] :]))


# by splitting at the model


def _split(body: bytes, keys: tuple[str, ...]) -> Peek:
    first = _FIRST.match(body)
    if first is not None:
        return _around(first, {}, _behind(body, first.end()), keys)
    at = len(body)
    for _ in range(MAX_CANDIDATES):
        at = body.rfind(b'"model"', 0, at)
        if at < 0:
            break
        member = _MEMBER.match(body, at)
        if member is None or not _opens_member(body, at):
            continue
        try:
            rest = _behind(body, member.end())
        except orjson.JSONDecodeError:
            continue  # deeper inside: its tail alone is no object
        return _around(member, _before(body, at), rest, keys)
    return _without(body, keys)


def _opens_member(body: bytes, at: int) -> bool:
    """Does `{` or `,` stand in front, space aside? If so, the quote at `at` opens a string."""
    while at and body[at - 1] in _SPACE:
        at -= 1
    return at > 0 and body[at - 1] in b"{,"


def _before(body: bytes, at: int) -> dict[str, Any]:
    """The members in front of the one at `at`."""
    head = body[:at].rstrip(_SPACE)
    return _object(head.removesuffix(b",") + b"}")


def _behind(body: bytes, end: int) -> dict[str, Any]:
    """The members behind the value that ends at `end`."""
    rest = body[end:].lstrip(_SPACE)
    if rest[:1] not in (b",", b"}"):
        raise orjson.JSONDecodeError("neither the next member nor the end", "", 0)
    return _object(b"{" + rest[1:] if rest[:1] == b"," else b"{" + rest)


def _object(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(text)
    return found


def _around(
    member: "re.Match[bytes]", head: dict[str, Any], rest: dict[str, Any], keys: tuple[str, ...]
) -> Peek:
    stream = rest["stream"] if "stream" in rest else head.get("stream")
    return Peek(
        model=_text(member[1]),
        model_span=member.span(1),
        stream=stream if isinstance(stream, bool) else None,
        ambiguous=_names_model(head) or _names_model(rest),
        values={key: (rest if key in rest else head)[key] for key in keys if key in rest or key in head},
    )


def _names_model(members: Iterable[str]) -> bool:
    """Is there a model among these keys? Go's decoder takes a key in any case."""
    return any(len(key) == 5 and key.lower() == "model" for key in members)


def _without(body: bytes, keys: tuple[str, ...]) -> Peek:
    """A body whose model was not found: it has none, or spells it in a way of its own."""
    found = orjson.loads(body)
    if not isinstance(found, dict):
        return Peek()
    if _names_model(found):
        return _walked(body, keys)
    stream = found.get("stream")
    return Peek(
        stream=stream if isinstance(stream, bool) else None,
        values={key: found[key] for key in keys if key in found},
    )


# by walking


def _walked(body: bytes, keys: tuple[str, ...]) -> Peek:
    if _OPEN.match(body) is None:
        return Peek()
    if b"\x00" in body:  # UTF-16 or UTF-32, which some parsers read and say something else than this
        return Peek(ambiguous=True)
    model: _Span | None = None
    models = 0
    values: dict[str, Any] = {}
    for key, at in _members(body):
        if key is None:
            return Peek(ambiguous=True)
        scalar = _SCALAR.match(body, at)
        if key.lower() == "model":
            models += 1
            is_text = scalar is not None and scalar[0][:1] == b'"'
            model = scalar.span() if scalar is not None and is_text and key == "model" else model
        elif key == "stream" or key in keys:
            values[key] = _value(scalar)
    stream = values.get("stream")
    return Peek(
        model=_text(body[model[0] : model[1]]) if model is not None else None,
        model_span=model,
        stream=stream if isinstance(stream, bool) else None,
        ambiguous=models > 1,
        values={key: values[key] for key in keys if key in values},
    )


def _members(body: bytes) -> Iterator[tuple[str | None, int]]:
    """Keys of the outermost object and where their values begin; a None when it is too much."""
    depth = 0
    for count, token in enumerate(_TOKEN.finditer(body)):
        if count > MAX_TOKENS:
            yield None, 0  # nobody asks for more behind this
        kind = token[0][:1]
        if kind == b'"':
            if depth == 1 and (colon := _COLON.match(body, token.end())) is not None:
                yield _text(token[0]), colon.end()
        elif kind in b"{[":
            depth += 1
        else:
            depth -= 1
            if not depth:
                if body[token.end() :].strip(_SPACE):
                    yield None, 0  # a form, a multipart body: who reads that reads another model
                return


def _text(raw: bytes) -> str:
    """What a JSON string says, as well as that can be said."""
    try:
        return str(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return raw[1:-1].decode(errors="replace")


def _value(scalar: "re.Match[bytes] | None") -> Any:
    """A member's value where it is a scalar; nested values are not held."""
    if scalar is None:
        return None
    try:
        return orjson.loads(scalar[0])
    except orjson.JSONDecodeError:
        return None
