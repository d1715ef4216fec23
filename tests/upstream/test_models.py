"""What a model's name leads to, and what /v1/models says about it."""

import pytest

from proxy.config.schema_pools import Fallback, Model
from proxy.upstream.models import MAX_MATCHED_NAME, Hop, ModelTable, context_length, merge

QWEN = Model(id="qwen", pool="big", upstream_model="Qwen/Qwen3-Coder", aliases=("coder", "gpt-4*"))
LLAMA = Model(id="llama", fallback=("qwen", "nobody-knows", "tiny-1b"))
TINY = Model(id="tiny-*", pool="small")
TINY_CHAT = Model(id="tiny-chat-*", pool="big", upstream_model="org/*")
LOST = Model(id="lost", pool="gone")
MODELS = [QWEN, LLAMA, TINY, TINY_CHAT, LOST]
POOLS = ("default", "big", "small", "spare")


def table(default_pool: str = "default", fallbacks: tuple[Fallback, ...] = ()) -> ModelTable:
    return ModelTable(MODELS, fallbacks, pools=POOLS, default_pool=default_pool)


@pytest.mark.parametrize(
    ("name", "hop"),
    [
        ("qwen", Hop("big", QWEN, "Qwen/Qwen3-Coder")),
        ("coder", Hop("big", QWEN, "Qwen/Qwen3-Coder")),
        ("gpt-4", Hop("big", QWEN, "Qwen/Qwen3-Coder")),
        ("gpt-4o-mini", Hop("big", QWEN, "Qwen/Qwen3-Coder")),
        ("llama", Hop("default", LLAMA, None)),
        ("tiny-1b", Hop("small", TINY, None)),
        ("tiny-chat-2b", Hop("big", TINY_CHAT, "org/2b")),
        ("lost", None),
        ("reported", Hop("spare")),
        ("unheard-of", Hop("default")),
        ("x" * MAX_MATCHED_NAME * 100, Hop("default")),
        (None, Hop("default")),
    ],
)
def test_a_name_leads_to_its_pool(name: str | None, hop: Hop | None) -> None:
    assert table().find(name, lambda asked: "spare" if asked == "reported" else None) == hop


@pytest.mark.parametrize("name", ["reported", "unheard-of", None])
def test_without_a_default_pool_unlisted_models_are_unknown(name: str | None) -> None:
    assert table("").find(name, lambda asked: "spare") is None


def test_without_a_default_pool_listed_models_are_found() -> None:
    assert table("").find("qwen") == Hop("big", QWEN, "Qwen/Qwen3-Coder")


@pytest.mark.parametrize(
    ("name", "configured"), [("qwen", True), ("gpt-4x", True), ("tiny-", True), ("other", False), ("", False)]
)
def test_configured_names_need_no_question(name: str, configured: bool) -> None:
    assert table().is_configured(name) is configured


def test_a_models_own_fallbacks_come_first_each_by_its_own_name() -> None:
    routes = table(fallbacks=(Fallback(pools=("spare", "gone"), models=("ll*",)), Fallback(pools=("big",))))
    first = routes.find("llama")
    assert first is not None

    assert routes.chain("llama", first) == (
        Hop("big", QWEN, "Qwen/Qwen3-Coder"),
        Hop("default", None, "nobody-knows"),
        Hop("small", TINY, "tiny-1b"),
        Hop("spare", LLAMA, None),
        Hop("big", LLAMA, None),
    )


def test_a_fallback_to_where_we_come_from_is_none() -> None:
    routes = table(fallbacks=(Fallback(pools=("big", "spare", "spare"), models=("qw*",)),))
    first = routes.find("coder")
    assert first is not None

    assert routes.chain("qwen", first) == (Hop("spare", QWEN, "Qwen/Qwen3-Coder"),)


def test_fallbacks_for_other_models_do_not_count() -> None:
    routes = table(fallbacks=(Fallback(pools=("spare",), models=("ll*",)),))
    first = routes.find("qwen")
    assert first is not None

    assert routes.chain("qwen", first) == ()


REPORTED = {
    "big": [{"id": "Qwen/Qwen3-Coder", "object": "model", "created": 5, "max_model_len": 262144}],
    "default": [
        {"id": "llama", "owned_by": "vllm", "max_model_len": 8192},
        {"id": "extra", "object": "model", "created": 9, "owned_by": "vllm", "meta": {"n_ctx": 4096}},
    ],
}


def merged(**changes: object) -> list[dict[str, object]]:
    options: dict = {"default_pool": "default", "lists_unlisted": True, "created": 1} | changes
    allowed = options.pop("allowed", lambda name: True)
    return merge(MODELS, REPORTED, allowed, **options)


def test_configured_models_come_first_and_know_what_their_pool_says() -> None:
    assert [entry["id"] for entry in merged()] == ["qwen", "llama", "lost", "extra"]
    assert merged()[0] == {
        "id": "qwen",
        "object": "model",
        "created": 1,
        "owned_by": "llmproxy",
        "context_length": 262144,
        "max_model_len": 262144,
    }


def test_reported_models_keep_all_that_their_server_says() -> None:
    assert merged()[-1] == {
        "id": "extra",
        "object": "model",
        "created": 9,
        "owned_by": "vllm",
        "meta": {"n_ctx": 4096},
        "context_length": 4096,
        "max_model_len": 4096,
    }


def test_reported_models_are_hidden_where_they_cannot_be_used() -> None:
    assert [entry["id"] for entry in merged(lists_unlisted=False)] == ["qwen", "llama", "lost"]


def test_a_key_sees_what_it_may_use() -> None:
    assert [entry["id"] for entry in merged(allowed={"extra", "qwen"}.__contains__)] == ["qwen", "extra"]


def test_what_is_configured_is_shown() -> None:
    model = Model(
        id="m",
        name="M",
        description="Big.",
        owned_by="us",
        context_length=1000,
        max_output=100,
        tools=True,
        reasoning=False,
    )

    entries = merge([model], {}, lambda name: True, default_pool="", lists_unlisted=True, created=7)

    assert entries == [
        {
            "id": "m",
            "object": "model",
            "created": 7,
            "owned_by": "us",
            "name": "M",
            "description": "Big.",
            "context_length": 1000,
            "max_model_len": 1000,
            "max_output_tokens": 100,
            "capabilities": {"tools": True, "reasoning": False},
        }
    ]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, None),
        ({"max_model_len": 4096}, 4096),
        ({"context_length": 5, "max_model_len": 4096}, 5),
        ({"max_context_length": 9}, 9),
        ({"meta": {"n_ctx": 512, "n_ctx_train": 40960}}, 512),
        ({"meta": None, "max_model_len": None}, None),
        ({"max_model_len": "4096"}, None),
        ({"max_model_len": True}, None),
        ({"max_model_len": 0}, None),
    ],
)
def test_reads_how_much_fits(known: dict[str, object], expected: int | None) -> None:
    assert context_length(known) == expected
