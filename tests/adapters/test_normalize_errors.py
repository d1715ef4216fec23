# ruff: noqa: E501 (tables read better on one line)
"""Errors of every engine become OpenAI's object, and what is right keeps its bytes."""

import json
import re
from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.edited_stream import EditedStream
from proxy.adapters.normalize_errors import OVERFLOW, NormalizeErrors, normalized

VLLM_LONG = (
    "This model's maximum context length is 32768 tokens. However, you requested 512 output tokens and "
    "your prompt contains at least 32257 input tokens, for a total of at least 32769 tokens. Please reduce "
    "the length of the input prompt or the number of requested output tokens."
)
VLLM_ONLY = (
    "You passed 40001 input tokens and requested 0 output tokens. However, the model's context length is "
    "only 32768 tokens, resulting in a maximum input length of 32768 tokens."
)
LLAMA_LONG = (
    "the request exceeds the available context size. try increasing the context size or enable context shift"
)
PYDANTIC = [
    {"type": "missing", "loc": ["body", "messages"], "msg": "Field required", "input": {"secret": "words"}},
    {"type": "extra_forbidden", "loc": ["body", "tools", 0, "x"], "msg": "Extra inputs are not permitted"},
]


def error(message, type, param=None, code=None):
    return {"message": message, "type": type, "param": param, "code": code}


# (what sends it, status, body, the error object)
ENGINES = [
    (
        "vLLM bad JSON",
        400,
        {"error": {"message": "JSON decode error", "type": "Bad Request", "param": None, "code": 400}},
        error("JSON decode error", "invalid_request_error"),
    ),
    (
        "vLLM unknown model",
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
        error("The model `x` does not exist.", "invalid_request_error", "model", "model_not_found"),
    ),
    (
        "vLLM prompt too long",
        400,
        {"error": {"message": VLLM_LONG, "type": "BadRequestError", "param": "input_tokens", "code": 400}},
        error(VLLM_LONG, "invalid_request_error", "input_tokens", OVERFLOW),
    ),
    (
        "vLLM prompt too long, other words",
        400,
        {"error": {"message": VLLM_ONLY, "type": "BadRequestError", "param": None, "code": 400}},
        error(VLLM_ONLY, "invalid_request_error", "messages", OVERFLOW),
    ),
    (
        "vLLM prompt too long, blamed on itself",
        500,
        {"error": {"message": VLLM_LONG, "type": "InternalServerError", "param": None, "code": 500}},
        error(VLLM_LONG, "invalid_request_error", "messages", OVERFLOW),
    ),
    (
        "vLLM of 2024, flat",
        400,
        {"object": "error", "message": VLLM_LONG, "type": "BadRequestError", "param": None, "code": 400},
        error(VLLM_LONG, "invalid_request_error", "messages", OVERFLOW),
    ),
    (
        "vLLM of 2023, flat with a code of its own",
        400,
        {"object": "error", "message": "top_p must be in (0, 1]", "type": "invalid_request_error", "code": 40302},
        error("top_p must be in (0, 1]", "invalid_request_error"),
    ),
    ("vLLM unknown path", 404, {"detail": "Not Found"}, error("Not Found", "invalid_request_error")),
    (
        "vLLM no key",
        401,
        {"error": "Unauthorized"},
        error("Unauthorized", "invalid_request_error", None, "invalid_api_key"),
    ),
    (
        "vLLM scaling",
        503,
        {"error": "The model is currently scaling. Please try again later."},
        error(
            "The model is currently scaling. Please try again later.",
            "service_unavailable_error",
            None,
            "server_is_overloaded",
        ),
    ),
    (
        "vLLM engine died",
        500,
        {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": 500}},
        error("EngineCore encountered an issue.", "server_error"),
    ),
    (
        "transformers bad request",
        422,
        {"detail": PYDANTIC},
        error(
            "messages: Field required; tools.0.x: Extra inputs are not permitted",
            "invalid_request_error",
            "messages",
        ),
    ),
    (
        "transformers unknown model",
        400,
        {"detail": "org/x is not a local folder"},
        error("org/x is not a local folder", "invalid_request_error"),
    ),
    (
        "transformers no messages",
        500,
        b"Internal Server Error",
        error("Internal Server Error", "server_error"),
    ),
    (
        "llama-server bad JSON",
        500,
        {"error": {"code": 500, "message": "parse error at line 1", "type": "server_error"}},
        error("parse error at line 1", "server_error"),
    ),
    (
        "llama-server prompt too long",
        400,
        {"error": {"code": 400, "message": LLAMA_LONG, "type": "exceed_context_size_error", "n_prompt_tokens": 15004, "n_ctx": 4096}},
        error(LLAMA_LONG, "invalid_request_error", "messages", OVERFLOW),
    ),
    (
        "llama-server no key",
        401,
        {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        error("Invalid API Key", "authentication_error", None, "invalid_api_key"),
    ),
    (
        "llama-server loading",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        error("Loading model", "unavailable_error", None, "server_is_overloaded"),
    ),
    (
        "llama-server unknown path",
        404,
        {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
        error("File Not Found", "not_found_error"),
    ),
    (
        "llama-cpp-python prompt too long",
        400,
        {"error": {"message": "Requested tokens (2124) exceed context window of 512", "type": "internal_server_error", "param": None, "code": None}},
        error("Requested tokens (2124) exceed context window of 512", "invalid_request_error", "messages", OVERFLOW),
    ),
    (
        "llama-cpp-python with an id that is no UUID",
        400,
        b"",
        error("The upstream refused the request and did not say why.", "invalid_request_error"),
    ),
    ("mlx bad request", 400, {"error": "messages must be a list"}, error("messages must be a list", "invalid_request_error")),
    ("mlx unknown path", 404, b"Not Found", error("Not Found", "invalid_request_error")),
    (
        "TGI overloaded",
        429,
        {"error": "Model is overloaded", "error_type": "overloaded"},
        error("Model is overloaded", "rate_limit_error", None, "rate_limit_exceeded"),
    ),
    (
        "TGI prompt too long",
        422,
        {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048", "error_type": "validation"},
        error(
            "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048",
            "invalid_request_error",
            "messages",
            OVERFLOW,
        ),
    ),
    (
        "TGI prompt and answer too long",
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 40 `inputs` tokens and 9999 `max_new_tokens`", "error_type": "validation"},
        error(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 40 `inputs` tokens and 9999 `max_new_tokens`",
            "invalid_request_error",
            "messages",
            OVERFLOW,
        ),
    ),
    (
        "TGI generation",
        424,
        {"error": "Request failed during generation", "error_type": "generation"},
        error("Request failed during generation", "server_error"),
    ),
    ("TGI no key", 401, b"", error("The upstream refused the request and did not say why.", "invalid_request_error", None, "invalid_api_key")),
    (
        "SGLang prompt too long",
        400,
        {"object": "error", "message": "The input (40000 tokens) is longer than the model's context length (32768 tokens).", "type": "BadRequestError", "param": None, "code": 400},
        error(
            "The input (40000 tokens) is longer than the model's context length (32768 tokens).",
            "invalid_request_error",
            "messages",
            OVERFLOW,
        ),
    ),
    (
        "Anthropic's words, in OpenAI's object",
        400,
        {"error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}},
        error("prompt is too long: 210000 tokens > 200000 maximum", "invalid_request_error", "messages", OVERFLOW),
    ),
    (
        "OpenRouter",
        402,
        {"error": {"message": "Insufficient credits", "code": 402}, "user_id": "u"},
        error("Insufficient credits", "invalid_request_error"),
    ),
    (
        "Google, in a list",
        400,
        [{"error": {"code": 400, "message": "Unknown name", "status": "INVALID_ARGUMENT"}}],
        error("Unknown name", "invalid_request_error"),
    ),
    (
        "nginx",
        502,
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1>",
        error("502 Bad Gateway", "server_error", None, "upstream_error"),
    ),
    (
        "HTML without a title",
        503,
        b"  <p>Down for\n <b>maintenance</b> &amp; back soon</p>",
        error("Down for maintenance & back soon", "service_unavailable_error", None, "server_is_overloaded"),
    ),
    ("nothing but blanks", 504, b" \r\n", error("The upstream failed and did not say why.", "server_error", None, "upstream_timeout")),
    ("an empty object", 500, b"{}", error("{}", "server_error")),
    ("an empty message", 500, {"error": {"message": "", "type": "x"}}, error("The upstream failed and did not say why.", "server_error")),
    ("a message beside the error", 400, {"error": {"code": 7}, "message": "No."}, error("No.", "invalid_request_error")),
    ("a detail that holds an error", 400, {"detail": {"error": "No."}}, error("No.", "invalid_request_error")),
    ("a detail of other things", 400, {"detail": ["No."]}, error('{"detail":["No."]}', "invalid_request_error")),
    ("a string", 400, b'"No."', error("No.", "invalid_request_error")),
    ("a title that never ends", 400, b"<title>Oh<br>no", error("Oh no", "invalid_request_error")),
    ("half a character", 400, b'{"error": "a \\ud83d b"}', error('{"error": "a \\ud83d b"}', "invalid_request_error")),
]  # fmt: skip


def encoded(body):
    return body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"), [case[1:] for case in ENGINES], ids=[case[0] for case in ENGINES]
)
def test_every_shape_becomes_openais_object(status, body, expected):
    assert json.loads(normalized(status, encoded(body))) == {"error": expected}


@pytest.mark.parametrize(
    ("status", "body"), [case[1:3] for case in ENGINES], ids=[case[0] for case in ENGINES]
)
def test_what_was_made_is_right_and_stays_as_it_is(status, body):
    made = normalized(status, encoded(body))

    assert normalized(status, made) is made


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, VLLM_LONG),
        (400, VLLM_ONLY),
        (400, "prompt is too long: 1 tokens > 0 maximum"),
        (400, "input is too long for requested model"),
        (400, "Your input exceeds the context window of this model."),
        (400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        (400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
        (400, "Please reduce the length of the messages or completion."),
        (400, "prompt token count of 9 exceeds the limit of 8"),
        (400, LLAMA_LONG),
        (400, "tokens to keep from the initial prompt is greater than the context length"),
        (400, "invalid params, context window exceeds limit"),
        (400, "Your request exceeded model token limit: 262144"),
        (400, "context_length_exceeded"),
        (400, "Input length (9) exceeds model's maximum context length (8)."),
        (400, "The decoder prompt (length 9) is longer than the maximum model length of 8."),
        (400, "Requested token count exceeds the model's maximum context length of 8 tokens."),
    ],
)
def test_a_context_overflow_is_recognised_and_never_reworded(status, message):
    body = {"error": error(message, "invalid_request_error")}

    assert json.loads(normalized(status, encoded(body)))["error"] == error(
        message, "invalid_request_error", "messages", OVERFLOW
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "Your prompts exceed the context window of your plan: maximum context length is 8 tokens"),
        (400, "max_tokens must be at least 1"),
        (400, "The image exceeds the limit of 20 MB"),
        (413, "<h1>413 Request Entity Too Large</h1>"),
    ],
)
def test_other_limits_are_no_overflow(status, message):
    assert json.loads(normalized(status, encoded({"error": message})))["error"]["code"] != OVERFLOW


def test_what_openai_sends_keeps_its_bytes():
    body = b'{ "error" : {"message":"No such model.","type":"invalid_request_error","param":null,"code":"model_not_found","extra":1}}\n'

    assert normalized(404, body) is body


def test_the_adapter_answers_as_its_client_speaks():
    body = b'{"error":"no"}'

    assert NormalizeErrors().answer(400, body) == normalized(400, body)
    assert NormalizeErrors(anthropic=True).answer(400, body) == normalized(400, body, anthropic=True)


def test_an_overflow_with_its_code_keeps_its_bytes():
    body = encoded({"error": error(VLLM_LONG, "invalid_request_error", "messages", OVERFLOW)})

    assert normalized(400, body) is body


def test_words_of_ours_give_no_reason_to_ask_again():
    refused = json.loads(normalized(400, b""))["error"]["message"]

    assert not re.search("429|50[0234]|524|rate limit|server error|overloaded", refused, re.IGNORECASE)


def test_a_long_page_is_cut_to_its_words():
    assert len(json.loads(normalized(500, b"a" * 100_000))["error"]["message"]) == 4096


def test_what_hides_an_error_deep_inside_is_answered_all_the_same():
    body = b'{"error":' * 500 + b"{}" + b"}" * 500

    assert json.loads(normalized(400, body))["error"]["type"] == "invalid_request_error"


@given(st.integers(400, 599), st.binary(max_size=300))
def test_any_bytes_become_an_error_with_a_message(status, body):
    made = json.loads(normalized(status, body))["error"]

    assert made["message"]
    assert isinstance(made["type"], str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "type", "code", "param", "object", "loc", "msg"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.integers(400, 599), json_values, st.booleans())
def test_any_json_becomes_an_error_with_a_message(status, value, anthropic):
    made = json.loads(normalized(status, json.dumps(value).encode(), anthropic=anthropic))["error"]

    assert isinstance(made["message"], str)
    assert made["message"]


# Anthropic's API


def test_a_messages_client_gets_the_object_it_looks_for():
    body = {"error": {"message": VLLM_LONG, "type": "BadRequestError", "param": None, "code": 400}}

    made = json.loads(normalized(400, encoded(body), anthropic=True))

    assert made == {
        "type": "error",
        "error": error(VLLM_LONG, "invalid_request_error", "messages", OVERFLOW),
    }


def test_anthropics_own_errors_keep_their_bytes():
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'

    assert normalized(529, body, anthropic=True) is body


# inside streams

CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"An \\"error\\""}}]}\n\n'

EVENTS = [
    (
        "vLLM",
        b'data: {"error": {"message": "boom", "type": "InternalServerError", "param": null, "code": 500}}\n\n',
        error("boom", "server_error"),
    ),
    ("transformers", b'data: {"error": "generation failed"}\n\n', error("generation failed", "server_error")),
    (
        "TGI, chat",
        b'data:{"error":{"message":"bad input","http_status_code":422}}\n\n',
        error("bad input", "invalid_request_error"),
    ),
    (
        "TGI, generate_stream",
        b'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n',
        error("Model is overloaded", "service_unavailable_error", None, "server_is_overloaded"),
    ),
    (
        "vLLM, flat",
        b'data: {"object": "error", "message": "no", "type": "BadRequestError", "param": null, "code": 400}\n\n',
        error("no", "invalid_request_error"),
    ),
    (
        "a prompt too long",
        b'data: {"error": "' + VLLM_LONG.encode() + b'"}\n\n',
        error(VLLM_LONG, "invalid_request_error", "messages", OVERFLOW),
    ),
    ("nothing", b'data: {"error": true}\n\n', error("The upstream failed and did not say why.", "server_error")),
]  # fmt: skip


def edited(*pieces, anthropic=False):
    stream = EditedStream([NormalizeErrors(anthropic=anthropic).edit])
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


@pytest.mark.parametrize(
    ("event", "expected"), [case[1:] for case in EVENTS], ids=[case[0] for case in EVENTS]
)
def test_an_error_in_a_stream_becomes_the_object(event, expected):
    written = edited(CHUNK + event + b"data: [DONE]\n\n")

    assert written.startswith(CHUNK + b"data: {")
    assert written.endswith(b"\n\ndata: [DONE]\n\n")
    assert json.loads(written[len(CHUNK) + 6 :].split(b"\n")[0]) == {"error": expected}


@pytest.mark.parametrize("event", [case[1] for case in EVENTS[1:4]])
def test_the_same_however_the_stream_is_cut(event):
    stream = event.replace(b"\n", b"\r\n") + b": \xe2\x80\xa8\n\ndata: 1\r\r"
    whole = edited(stream)

    for first, second in combinations_with_replacement(range(len(stream) + 1), 2):
        assert edited(stream[:first], stream[first:second], stream[second:]) == whole


@pytest.mark.parametrize(
    "event",
    [
        CHUNK,
        b"data: [DONE]\n\n",
        b": comment\n\n",
        b'data: {"choices":[],"error":null}\n\n',
        b'data: {"error":{"message":"m","type":"server_error","param":null,"code":null}}\n\n',
        b'event: error\ndata: {"type":"error","code":"server_error","message":"m","param":null}\n\n',
        b'data: {"type":"response.failed","response":{"error":{"code":"x","message":"m"}}}\n\n',
        b'data: {"error": "not JSON\n\n',
        b'data: ["error"]\n\n',
    ],
)
def test_every_other_event_keeps_its_bytes(event):
    assert edited(event) == event


def test_an_error_beside_choices_keeps_what_else_is_there():
    event = b'data: {"id":"c","choices":[{"index":0,"finish_reason":"error"}],"error":{"code":502,"message":"gone"}}\n\n'

    written = json.loads(edited(event)[6:])

    assert written["error"] == error("gone", "server_error", None, "upstream_error")
    assert written["choices"] == [{"index": 0, "finish_reason": "error"}]


def test_an_events_name_and_id_stay():
    written = edited(b'id: 7\nevent: error\ndata: {"error":"no"}\n\n', anthropic=True)

    assert written.startswith(b"event: error\nid: 7\ndata: ")
    assert json.loads(written.split(b"data: ")[1])["type"] == "error"
