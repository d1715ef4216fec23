"""The usual answer, read for what it used and for nothing else.

Most answers to a JSON client count their tokens as OpenAI or vLLM does. With
the fields that matter declared, msgspec passes over all others without making
objects of them: half the time of a whole parse. Whatever is not exactly as
declared here is no usual answer, and is left to those who know every dialect.
"""

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.json import Decoder

from proxy.usage.answer import MAX_ID_CHARS
from proxy.usage.tokens import MAX_TOKENS, Usage

Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]


class _PromptDetails(Struct, gc=False):
    cached_tokens: Count | None = None


class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: Count | None = None


class _Counts(Struct, gc=False):
    """Those that are None here are other dialects' names, which would have a say."""

    prompt_tokens: Count
    total_tokens: Count
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    input_tokens: None = None
    output_tokens: None = None
    input_tokens_details: None = None
    output_tokens_details: None = None
    cache_read_input_tokens: None = None
    prompt_cache_hit_tokens: None = None
    cached_tokens: None = None
    reasoning_tokens: None = None


class _Message(Struct, gc=False):
    tool_calls: Annotated[list[None], Meta(max_length=0)] | None = None


class _Choice(Struct, gc=False):
    message: _Message | None = None
    delta: None = None


class _Answer(Struct, gc=False):
    """One that calls no tools."""

    usage: _Counts
    choices: list[_Choice] = []
    output: None = None
    content: None = None
    content_block: None = None
    id: Annotated[str, Meta(max_length=MAX_ID_CHARS)] | None = None
    error: None = None
    type: None = None
    response: None = None
    message: None = None


_decode = Decoder(_Answer).decode


def usual(document: bytes) -> tuple[Usage, str | None] | None:
    """What a usual answer used, and its id; None for all others, among them what is no JSON."""
    try:
        answer = _decode(document)
    except (ValueError, RecursionError):  # a DecodeError, or an id that is no UTF-8
        return None
    counts = answer.usage
    prompt, total, completion = counts.prompt_tokens, counts.total_tokens, counts.completion_tokens
    if completion is None:
        completion = max(total - prompt, 0)
    cached = reasoning = None
    if counts.prompt_tokens_details is not None:
        cached = counts.prompt_tokens_details.cached_tokens
    if counts.completion_tokens_details is not None:
        reasoning = counts.completion_tokens_details.reasoning_tokens
    return Usage(prompt, completion, total, cached, reasoning), answer.id
