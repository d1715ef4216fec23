"""What one JSON object of an answer says: a whole answer, or one event of a stream.

Chat completions, legacy completions, embeddings, the Responses API, Anthropic's
messages, llama-server's and TGI's own endpoints. Keys inside the model's own words
(tool arguments that a server sends as objects) are never taken for the server's.
"""

import re
from collections.abc import Iterator
from json import JSONDecoder
from typing import Any

import orjson

from proxy.usage.ends import Ends
from proxy.usage.tokens import Usage, usage_from_details, usage_from_timings

Json = dict[str, Any]

# The type of the event that ends a stream by its own protocol. (Tuples: a foreign `type` may be
# of any JSON type, hashable or not.)
_LAST_TYPES = (
    "response.completed",
    "response.incomplete",
    "response.failed",
    "message_stop",
    "image_generation.completed",
    "image_edit.completed",
    "speech.audio.done",
    "transcript.text.done",
)
_ERROR_TYPES = ("error", "response.failed")
_CALL_TYPES = ("function_call", "custom_tool_call", "tool_use")

# Where a delta or a message keeps text that the model generated.
_TEXT_KEYS = frozenset(
    {"content", "reasoning_content", "reasoning", "text", "thinking", "partial_json", "refusal"}
)

MAX_ID_CHARS = 256  # longer than any engine's ids; what exceeds it is not worth keeping

# In bytes that were not kept whole. A key's closing quote is never escaped, so these do not
# match inside the model's text.
_TYPE = re.compile(rb'(?<!\\)"type"\s*:\s*"([\w.]{1,64})"')
_ID = re.compile(
    rb'(?:data:)?\s*\{\s*(?:"type"\s*:\s*"[\w.]*"\s*,\s*"response"\s*:\s*\{\s*)?"id"\s*:\s*"([!#-\[\]-~]{1,256})"'
)
_FINISH = re.compile(rb'(?<!\\)"finish_reason"\s*:\s*"')


def parse(data: bytes) -> Any:
    """The value, or None where this is no JSON (`null` says nothing either)."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def usage_object(document: Json) -> Json | None:
    """The object that counts tokens, as the server wrote it."""
    if isinstance(found := document.get("usage"), dict):
        return found
    for holder in (document.get("response"), document.get("message")):
        if isinstance(holder, dict) and isinstance(found := holder.get("usage"), dict):
            return found
    return None


def spare_usage(document: Json) -> Usage | None:
    """Counts from where a server without `usage` has them: llama-server's timings, TGI's details."""
    timings, details = document.get("timings"), document.get("details")
    if isinstance(timings, dict) and (usage := usage_from_timings(timings)):
        return usage
    return usage_from_details(details) if isinstance(details, dict) else None


def is_delta(document: Json) -> bool:
    """Whether this event belongs to the answer's text, so that it may or may not be its last."""
    return bool(document.get("choices")) or "type" in document or "token" in document


def is_last(document: Json) -> bool:
    """Whether nothing of the answer can come after this event."""
    if document.get("type") in _LAST_TYPES or document.get("stop") is True:
        return True
    choices = document.get("choices")
    if choices == [] and isinstance(document.get("usage"), dict):
        return True
    if isinstance(document.get("generated_text"), str):
        return True
    return any(choice.get("finish_reason") is not None for choice in _objects(choices))


def has_error(document: Json) -> bool:
    return bool(document.get("error")) or document.get("type") in _ERROR_TYPES


def response_id(document: Json) -> str | None:
    if isinstance(found := document.get("id"), str):
        return found[:MAX_ID_CHARS]
    for holder in (document.get("response"), document.get("message")):
        if isinstance(holder, dict) and isinstance(found := holder.get("id"), str):
            return found[:MAX_ID_CHARS]
    return None


def text_bytes(document: Json) -> int:
    """Bytes of generated text in it, tool arguments included."""
    size = 0
    for holder in _text_holders(document):
        for key, value in holder.items():
            if isinstance(value, str) and key in _TEXT_KEYS:
                size += len(value.encode(errors="replace"))
        for call in _objects(holder.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict) and isinstance(arguments := function.get("arguments"), str):
                size += len(arguments.encode(errors="replace"))
    delta = document.get("delta")
    return size + len(delta.encode(errors="replace")) if isinstance(delta, str) else size


def started_calls(document: Json) -> Iterator[tuple[int, int]]:
    """(choice, call) of each tool call that is named here; a later delta may name it again."""
    for choice in _objects(document.get("choices")):
        at = choice.get("index")
        for holder in (choice.get("delta"), choice.get("message")):
            calls = holder.get("tool_calls") if isinstance(holder, dict) else None
            for position, call in enumerate(_objects(calls)):
                function = call.get("function")
                if isinstance(function, dict) and function.get("name"):
                    yield _number(at, 0), _number(call.get("index"), position)
    response = document.get("response")
    output = response.get("output") if isinstance(response, dict) else document.get("output")
    for position, item in enumerate([*_objects(output), *_objects(document.get("content"))]):
        if item.get("type") in _CALL_TYPES:
            yield 0, position
    block = document.get("content_block")
    if isinstance(block, dict) and block.get("type") in _CALL_TYPES:
        yield 0, _number(document.get("index"), 0)


def usage_behind(data: bytes, at: int) -> Json | None:
    """The usage object whose key stands at `at`, if that is certainly a key of the document itself.

    What follows the key must close exactly one object and then end: so the key's object is the
    outermost one. Needs only the end of the document, and a fraction of a whole parse.
    """
    if at > 0 and data[at - 1] == 0x5C:  # a backslash: the quote belongs to some text
        return None
    rest = parse(b"{" + data[at:])
    found = rest.get("usage") if isinstance(rest, dict) else None
    return found if isinstance(found, dict) else None


def usage_in_ends(ends: Ends) -> Json | None:
    """The usage object of a document of which only the ends were kept."""
    at = ends.tail.rfind(b'"usage"')
    if at >= 0:
        found = usage_behind(ends.tail, at)
        if found is None and b'"type"' in ends.head:  # an event around a response: one brace more
            found = usage_behind(ends.tail.rstrip()[:-1], at)
        if found is not None:
            return found
    return _usage_ahead(ends.head)


def _usage_ahead(head: bytes) -> Json | None:
    """A usage object that stands before the long part: close the document right behind it."""
    at = head.find(b'"usage"')
    opens = head.find(b"{", at)
    if at < 0 or opens < 0:
        return None
    try:
        # As Latin-1 every byte is one character, so that lengths stay what they are.
        _, length = JSONDecoder().raw_decode(head[opens:].decode("latin-1"))
    except ValueError:
        return None
    document = parse(head[head.find(b"{") : opens + length] + b"}")
    return usage_object(document) if isinstance(document, dict) else None


def summary_of(ends: Ends) -> Json:
    """What is certain about an event that was too long to keep, in the shape of an event."""
    summary: Json = {}
    if (found := usage_in_ends(ends)) is not None:
        summary["usage"] = found
    if name := _TYPE.search(ends.head):
        summary["type"] = name[1].decode()
    if (found_id := id_in_head(ends.head)) is not None:
        summary["id"] = found_id
    if b'"choices"' in ends.head:
        finished = _FINISH.search(ends.tail) or _FINISH.search(ends.head)
        summary["choices"] = [{"finish_reason": "" if finished else None}]
    return summary


def id_in_head(head: bytes) -> str | None:
    """The answer's id, where it is the first thing in a document that was not kept whole."""
    found = _ID.match(head)
    return found[1].decode() if found else None


def _text_holders(document: Json) -> Iterator[Json]:
    for choice in _objects(document.get("choices")):
        yield choice
        for holder in (choice.get("delta"), choice.get("message")):
            if isinstance(holder, dict):
                yield holder
    for name in ("delta", "token"):
        if isinstance(holder := document.get(name), dict):
            yield holder


def _number(value: object, otherwise: int) -> int:
    return value if type(value) is int else otherwise


def _objects(values: object) -> Iterator[Json]:
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else iter(())
