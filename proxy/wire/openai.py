"""The few shapes of OpenAI's chat API that more than one part of the gateway reads or writes.

Upstreams leave fields out, put null where an object belongs, or send a string
for an error, so every reader here takes any JSON and gives back what is usable.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Json = dict[str, Any]

# What ends a stream, and no JSON.
DONE = b"[DONE]"

# Finish reasons that say the answer was cut, not finished. As tuples, here and wherever a body's values
# are looked for: they may be of any JSON type, and a list cannot be looked for in a set.
TRUNCATED = ("length", "content_filter")
# TGI's words for a stop; OpenCode asks again after any word it does not know.
STOPPED = ("stop", "eos_token", "stop_sequence")


def parsed(text: bytes) -> Json | None:
    """The object that a body or an event's data holds, or None.

    Some servers cut characters into two chunks as halves of an escape, or write NaN:
    orjson takes neither, and the answer is worth a second, slower try.
    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def encoded(document: Json) -> bytes:
    """The JSON of a document; half a character is written as the escape it came as."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, separators=(",", ":")).encode()


def parsed_request(body: bytes) -> Json | None:
    """A request's object; half a character, which clients leave where they cut a text, is mended.

    It would come back in every later request of a session, and no engine takes it.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            text = json.dumps(json.loads(body), ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):
            return None
        found = orjson.loads(text.encode(errors="replace"))
    return found if isinstance(found, dict) else None


def objects(value: object) -> Iterator[Json]:
    """The objects of a list, if it is one."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item


def text_of(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in objects(content))
    return "\n".join(text for text in texts if isinstance(text, str))


def function_of(tool: Mapping[str, Any]) -> Json:
    """A tool's function; some clients leave the envelope out."""
    function = tool.get("function", tool)
    return function if isinstance(function, dict) else {}


def name_of(tool: Mapping[str, Any]) -> str:
    name = function_of(tool).get("name")
    return name if isinstance(name, str) else ""


def error_event(message: str, kind: str = "server_error", code: str | None = None) -> bytes:
    """An error inside a stream that has begun; clients retry on this type, and on others give up."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"
