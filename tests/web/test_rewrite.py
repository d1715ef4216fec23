"""An adapter that fails leaves the answer as it came."""

import logging

from proxy.adapters.normalize_errors import NormalizeErrors
from proxy.web.rewrite import AnswerRewrite
from proxy.wire.http1 import AnswerHead, Framing, read_line


class Fails(NormalizeErrors):
    def answer(self, status, body):
        raise ValueError("a model's words")

    def edit(self, event):
        raise ValueError("a model's words")


def head(status, kind):
    return AnswerHead(1, status, b"", [read_line(b"Content-Type: " + kind)], frozenset(), Framing.LENGTH)


def test_an_error_that_could_not_be_read_passes_and_is_counted(caplog):
    rewrite, answer = AnswerRewrite(errors=Fails()), head(400, b"application/json")

    with caplog.at_level(logging.ERROR):
        assert rewrite.whole(answer, b'{"error":1}') == (answer, b'{"error":1}')

    assert rewrite.failures == 1
    assert "words" not in caplog.text


def test_a_stream_that_could_not_be_edited_passes_and_is_counted():
    rewrite = AnswerRewrite(errors=Fails())
    stream = rewrite.stream_for(head(200, b"text/event-stream"))

    assert stream.feed(b"data: 1\n\n") + stream.finish() == b"data: 1\n\n"
    assert rewrite.failures == 1
