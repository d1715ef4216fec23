"""Earlier calls for an upstream whose chat template renders them itself.

Templates iterate over the arguments, so an upstream that takes JSON text decodes
it first, and what cannot be decoded would be refused in every later request of
the session. Only that is repaired here, and only then is a message rewritten.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from proxy.wire.openai import Json, objects

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def repaired(messages: Sequence[Any], *, nine: bool = False) -> Sequence[Any]:
    """The messages, the same object if nothing was wrong; `nine` maps ids to 9 characters."""
    written = [_message(message, nine=nine) for message in messages]
    same = all(new is old for new, old in zip(written, messages, strict=True))
    return messages if same else written


def short_id(id: str) -> str:
    """A foreign id as the 9 letters and digits that Mistral's templates demand, always the same."""
    if len(id) == 9 and id.isascii() and id.isalnum():
        return id
    return letters(hashlib.sha256(id.encode(errors="surrogatepass")).digest(), 9)


def letters(chance: bytes, count: int) -> str:
    """Letters and digits made from enough bytes."""
    number = int.from_bytes(chance, "big")
    found = []
    for _ in range(count):
        number, digit = divmod(number, len(_ALPHABET))
        found.append(_ALPHABET[digit])
    return "".join(found)


def _message(message: Any, *, nine: bool) -> Any:
    if not isinstance(message, dict):
        return message
    if message.get("role") == "tool" and nine:
        id = message.get("tool_call_id")
        return message | {"tool_call_id": short_id(id)} if isinstance(id, str) else message
    if message.get("role") != "assistant" or "tool_calls" not in message:
        return message
    if not message["tool_calls"]:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    calls = list(objects(message["tool_calls"]))
    written = [_call(call, nine=nine) for call in calls]
    same = all(new is old for new, old in zip(written, calls, strict=True))
    return message if same else message | {"tool_calls": written}


def _call(call: Json, *, nine: bool) -> Json:
    changes = dict(_changes(call, nine=nine))
    return call | changes if changes else call


def _changes(call: Json, *, nine: bool) -> Iterator[tuple[str, Any]]:
    id = call.get("id")
    if nine and isinstance(id, str) and short_id(id) != id:
        yield "id", short_id(id)
    function = call.get("function")
    if isinstance(function, dict):
        given = function.get("arguments")
        sound = _object_text(given)
        if sound != given:
            yield "function", function | {"arguments": sound}


def _object_text(arguments: object) -> str:
    """The arguments as the text of a JSON object, which an empty one has to be where they are none."""
    if isinstance(arguments, dict):
        return orjson.dumps(arguments).decode()
    if not isinstance(arguments, str):
        return "{}"
    try:
        return arguments if isinstance(orjson.loads(arguments), dict) else "{}"
    except orjson.JSONDecodeError:
        return "{}"
