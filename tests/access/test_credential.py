"""What a credential is, says and hides."""

from hashlib import sha256

import pytest

from proxy.access import Credential, digest, key_id, may_use

KEY = b"sk-llmproxy-canary"


def credential(**facts):
    return Credential(key_id(digest(KEY)), digest(KEY), **facts)


def test_a_key_is_known_by_its_digest_and_called_by_its_first_digits():
    assert digest(KEY) == sha256(KEY).digest()
    assert key_id(digest(KEY)) == sha256(KEY).hexdigest()[:8]


def test_its_text_form_shows_neither_key_nor_digest():
    shown = repr(credential(name="alice"))

    assert "alice" in shown
    assert "canary" not in shown
    assert digest(KEY).hex()[8:] not in shown
    assert repr(digest(KEY))[2:-1] not in shown


def test_models_may_be_named_with_wildcards():
    limited = credential(allowed_models=("qwen*", "gpt-4o"))

    assert [limited.may_use(model) for model in ("qwen3", "gpt-4o", "gpt-4o-mini")] == [True, True, False]


def test_without_a_list_or_a_key_every_model_may_be_used():
    assert may_use(credential(), "anything")
    assert may_use(None, "anything")
    assert not may_use(credential(allowed_models=("a",)), "b")


def test_a_model_must_be_allowed_by_everybody_who_has_a_say():
    both = credential(allowed_models=("a", "b"), also=(credential(allowed_models=("b", "c")),))

    assert [both.may_use(model) for model in "abc"] == [False, True, False]


@pytest.mark.parametrize(
    ("own", "other", "end"),
    [(None, None, None), (None, 5.0, 5.0), (5.0, None, 5.0), (5.0, 3.0, 3.0), (3.0, 5.0, 3.0)],
)
def test_the_earlier_end_counts(own, other, end):
    assert credential(expires_at=own).ending(other).expires_at == end
