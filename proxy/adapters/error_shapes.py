"""What an upstream's error says, whatever shape it has.

OpenAI nests an object, vLLM puts the status into its `code` and was once flat,
FastAPI has `detail`, mlx and transformers a string, TGI a string and its type,
and what stands in front of them answers with HTML, plain text or nothing.
"""

import html
import re
from dataclasses import dataclass, replace
from typing import Any

import orjson

from proxy.wire.openai import Json, objects

# Of a text that is no JSON this much is the message: an error page's words, not the whole page.
MAX_TEXT_CHARS = 4096
# A page has its title near its beginning.
_MAX_PAGE_CHARS = 64 * 1024
# FastAPI lists a problem for each member of a union that did not fit; the first few say enough.
MAX_DETAILS = 8

# An error inside an error inside an error says no more than its outside.
_MAX_DEPTH = 4

_TITLE = re.compile(r"<(?:title|h1)\b[^<>]*>", re.IGNORECASE)
_TITLE_END = re.compile(r"</(?:title|h1)\b", re.IGNORECASE)
_TAGS = re.compile(r"<[^<>]*>")
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Said:
    """What was found; nothing of it is certain to be what OpenAI would write."""

    message: str = ""
    type: str = ""
    param: str | None = None
    code: str = ""
    status: int | None = None  # what the body itself says it is


def said_by(body: bytes) -> Said:
    """What an error answer's body says."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Said(_of_text(body.decode("utf-8", "replace")))
    return said_in(document) or Said(_of_text(body.decode("utf-8", "replace")))


def said_in(document: Any, depth: int = _MAX_DEPTH) -> Said | None:
    """What a JSON value says, if it says anything as errors do."""
    if isinstance(document, str):
        return Said(document.strip()) if document.strip() else None
    if isinstance(document, list):
        document = next(objects(document), None)
    return _in_object(document, depth - 1) if isinstance(document, dict) and depth else None


def _in_object(document: Json, depth: int) -> Said | None:
    outer, inner = _members(document), document.get("error")
    if isinstance(inner, dict):
        found = said_in(inner, depth) or _members(inner)
        return replace(found, message=found.message or outer.message)
    if _text(inner):
        return replace(outer, message=_text(inner))
    if outer.message:
        return outer
    detail = document.get("detail")
    return (_of_details(detail) if isinstance(detail, list) else None) or said_in(detail, depth)


def _members(found: Json) -> Said:
    """The members that errors have in common."""
    kind, param, code = found.get("type") or found.get("error_type"), found.get("param"), found.get("code")
    status = found.get("http_status_code", code)
    return Said(
        message=_text(found.get("message")),
        type=kind if isinstance(kind, str) else "",
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) and not code.isdigit() else "",
        status=status if type(status) is int and 400 <= status < 600 else None,
    )


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _of_details(details: list[Any]) -> Said | None:
    """FastAPI's list of what is wrong with a request; what was sent is not repeated."""
    found = [each for each in objects(details) if isinstance(each.get("msg"), str)]
    if not found:
        return None
    places = [_place(each.get("loc")) for each in found]
    words = [
        f"{place}: {each['msg']}" if place else each["msg"] for place, each in zip(places, found, strict=True)
    ]
    return Said("; ".join(words[:MAX_DETAILS]), param=places[0] or None)


def _place(loc: object) -> str:
    steps = [str(step) for step in loc if isinstance(step, str | int)] if isinstance(loc, list) else []
    return ".".join(steps[1:] if steps[:1] == ["body"] else steps)


def _of_text(text: str) -> str:
    text = text[:_MAX_PAGE_CHARS].strip()
    if text[:1] == "<":
        began = _TITLE.search(text)
        ended = _TITLE_END.search(text, began.end()) if began is not None else None
        if began is not None and ended is not None:
            text = text[began.end() : ended.start()]
        text = _BLANKS.sub(" ", html.unescape(_TAGS.sub(" ", text))).strip()
    return text[:MAX_TEXT_CHARS]
