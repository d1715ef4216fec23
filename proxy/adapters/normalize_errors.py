"""An upstream's error of any shape as OpenAI's error object.

Clients decide by its type, code and words what to do: try again, give up, or, where
the prompt no longer fits the context, compact the conversation. So a context
overflow gets OpenAI's code for it, and its message is never reworded: the engines'
phrases are what clients look for. What is right already keeps its bytes.
"""

import re
from typing import Any

from proxy.adapters.error_shapes import Said, said_by, said_in
from proxy.wire.openai import Json, encoded, parsed
from proxy.wire.sse import SseEvent, encode

OVERFLOW = "context_length_exceeded"
_REFUSED = "invalid_request_error"
_FAILED = "server_error"

# What engines and web APIs say when a prompt is too long. Clients know most of these by heart.
_OVERFLOWS = re.compile(
    r"maximum context length is \d+ tokens|context length is only \d+ tokens"  # vLLM
    r"|input length.{0,80}exceeds.{0,80}context length|longer than the maximum model length"  # vLLM
    r"|longer than the model's context length|exceeds the model's maximum context length"  # SGLang
    r"|exceeds? the available context size|exceed_context_size"  # llama.cpp
    r"|exceeds? (?:the )?context window"  # OpenAI, llama-cpp-python
    r"|greater than the context length"  # LM Studio
    r"|`inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than \d+ tokens)"  # TGI
    r"|prompt is too long|input is too long for requested model"  # Anthropic, Bedrock
    r"|input token count.{0,80}exceeds the maximum|maximum prompt length is \d+"  # Gemini, Grok
    r"|prompt token count.{0,80}exceeds the limit of \d+|reduce the length of the (?:messages|prompt)"
    r"|context window exceeds limit|exceeded model token limit|context[_ ]length[_ ]exceeded",
    re.IGNORECASE | re.DOTALL,
)
# Where they stand in a message that is worth reading; the rest may be the prompt itself.
_OVERFLOW_CHARS = 8192
# A limit of another kind may be worded alike.
_NEVER_OVERFLOW = frozenset((401, 403, 404, 429))

# Types that clients know; engines call theirs after Python's exceptions, or after a status.
_TYPE = re.compile(r"[a-z]+(?:_[a-z]+)*_error|insufficient_quota|requests|tokens")
_TYPES = {
    424: _FAILED,
    429: "rate_limit_error",
    503: "service_unavailable_error",
    529: "service_unavailable_error",
}
_CODES = {
    401: "invalid_api_key",
    429: "rate_limit_exceeded",
    502: "upstream_error",
    503: "server_is_overloaded",
    504: "upstream_timeout",
    529: "server_is_overloaded",
}
# An event in a stream has no status but what its type tells: vLLM's and TGI's own.
_STATUS_OF = {
    "BadRequestError": 400,
    "Bad Request": 400,
    "invalid_request_error": 400,
    "validation": 422,
    "NotFoundError": 404,
    "overloaded": 503,
    "overloaded_error": 503,
    "unhealthy": 503,
    "rate_limit_error": 429,
    "RateLimitError": 429,
}


def normalized(status: int, body: bytes, *, anthropic: bool = False) -> bytes:
    """The body of an error answer with this status; the same object if it is right already."""
    document = parsed(body)
    if document is not None and _is_right(document, status, anthropic=anthropic):
        return body
    return encoded(_document(_error(said_by(body), status), anthropic=anthropic))


class NormalizeErrors:
    """For one request's answer: an error's body, and errors inside a stream that has begun."""

    def __init__(self, *, anthropic: bool = False) -> None:
        """`anthropic`: the client speaks that API, whose errors are OpenAI's in one more object."""
        self._anthropic = anthropic

    def answer(self, status: int, body: bytes) -> bytes:
        return normalized(status, body, anthropic=self._anthropic)

    def edit(self, event: SseEvent) -> bytes | None:
        """The event to write in place of this one, or None."""
        if event.data is None or b'"error"' not in event.data:
            return None
        document = parsed(event.data)
        if document is None or not _tells_of_error(document):
            return None
        said = said_in(document)
        status = _status_of(said) if said is not None else 500
        if _is_right(document, status, anthropic=self._anthropic):
            return None
        written = _document(_error(said or Said(), status), anthropic=self._anthropic)
        if "choices" in document:
            written = document | written
        return encode(event._replace(data=encoded(written), comment=None))


def _tells_of_error(document: Json) -> bool:
    return bool(document.get("error")) or document.get("object") == "error"


def _is_right(document: Json, status: int, *, anthropic: bool) -> bool:
    error: Any = document.get("error")
    if not isinstance(error, dict):
        return False
    message, kind = error.get("message"), error.get("type")
    if not isinstance(message, str) or not message or not isinstance(kind, str):
        return False
    if anthropic:
        return document.get("type") == "error"
    code, param = error.get("code", 0), error.get("param", 0)
    if not all(each is None or isinstance(each, str) for each in (code, param)) or not _TYPE.fullmatch(kind):
        return False
    return code == OVERFLOW or not _is_overflow(Said(message, kind, code=code or ""), status)


def _document(error: Json, *, anthropic: bool) -> Json:
    """Anthropic's clients look for the same members, under an object that is an error itself."""
    return {"type": "error", "error": error} if anthropic else {"error": error}


def _error(said: Said, status: int) -> Json:
    if _is_overflow(said, status):
        return {
            "message": said.message,
            "type": _REFUSED,
            "param": said.param or "messages",
            "code": OVERFLOW,
        }
    return {
        "message": said.message or _unsaid(status),
        "type": said.type if _TYPE.fullmatch(said.type) else _type_of(status),
        "param": said.param,
        "code": said.code or _code_of(said, status),
    }


def _is_overflow(said: Said, status: int) -> bool:
    if status in _NEVER_OVERFLOW:
        return False
    return any(_OVERFLOWS.search(text, 0, _OVERFLOW_CHARS) for text in (said.message, said.code, said.type))


def _type_of(status: int) -> str:
    return _TYPES.get(status, _REFUSED if status < 500 else _FAILED)


def _code_of(said: Said, status: int) -> str | None:
    if status == 404 and "model" in said.message.lower():
        return "model_not_found"
    return _CODES.get(status)


def _unsaid(status: int) -> str:
    """Words for an answer that has none; those for a refusal must not look like a reason to try again."""
    if status < 500:
        return "The upstream refused the request and did not say why."
    return "The upstream failed and did not say why."


def _status_of(said: Said) -> int:
    return said.status or _STATUS_OF.get(said.type, 500)
