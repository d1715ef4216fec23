"""The access line of one request: facts only, no key, no prompt, no query."""

from datetime import UTC, datetime
from functools import lru_cache

import orjson

from proxy.web.exchange import Exchange
from proxy.web.facts import MAX_CLIENT_TEXT, MAX_METHOD, client_text, printable, repeats_another


def json_line(exchange: Exchange, ended: float) -> bytes:
    """One JSON object and a line end; `ended` is the loop's clock.

    orjson's own bytes are cut off a block of twice their size; where thousands of them are
    kept, that costs 4 us each. Ours is a copy, and their block is used again for the next.
    """
    return orjson.dumps(_facts(exchange, ended)) + b"\n"


def text_line(exchange: Exchange, ended: float) -> bytes:
    """Close to the combined format: `ip - user [time] "METHOD path" status ms "backend" key=value …`."""
    facts = _facts(exchange, ended)
    when = datetime.fromtimestamp(exchange.at, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    rest = " ".join(
        f"{name}={_quoted(value)}"
        for name, value in facts.items()
        if value is not None
        and name not in ("time", "ip", "method", "path", "status", "ms", "backend", "user")
    )
    line = (
        f"{facts['ip']} - {_quoted(facts['user'] or '-')} [{when}] "
        f'"{facts["method"]} {facts["path"]}" '
        f'{facts["status"]} {facts["ms"]}ms "{facts["backend"] or "-"}" {rest}\n'
    )
    return line.encode("utf-8", "backslashreplace")


def _facts(exchange: Exchange, ended: float) -> dict[str, object]:
    credential, usage, facts = exchange.credential, exchange.usage, exchange.facts
    at, began, first_byte, model = exchange.at, exchange.began, exchange.first_byte, exchange.model
    return {
        "time": f"{_second(int(at))}.{str(1000 + int(at % 1.0 * 1000.0))[1:]}+00:00",
        "id": exchange.id,
        "ip": exchange.client_ip,
        "key": credential.key_id if credential is not None else None,
        "user": credential.user_id if credential is not None else None,
        "method": facts.method[:MAX_METHOD],
        "path": facts.shown_path,
        "status": exchange.status,
        "ms": _milliseconds(ended - began),
        "first_byte_ms": _milliseconds(first_byte - began) if first_byte is not None else None,
        "bytes": exchange.bytes_out,
        "model": printable(model[:MAX_CLIENT_TEXT]) if model is not None else None,
        "backend": exchange.endpoint.name if exchange.endpoint is not None else None,
        "attempts": exchange.attempts if len(exchange.attempts) > 1 else None,
        "stream": exchange.is_stream,
        "prompt_tokens": usage.prompt if usage is not None else None,
        "completion_tokens": usage.completion if usage is not None else None,
        "outcome": exchange.outcome,
        "error": exchange.error,
        "upstream_id": _upstream_id(exchange),
    }


def _upstream_id(exchange: Exchange) -> str | None:
    """The request id that the client was shown, where the upstream gave one of its own."""
    given = exchange.answer.get(b"x-request-id") if exchange.answer is not None else None
    if not given or given == exchange.id.encode() or repeats_another(exchange.head, given):
        return None
    return client_text(given)


@lru_cache(maxsize=2)  # requests of one second are written together; formatting it takes 1 us
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _milliseconds(seconds: float) -> float:
    """To a tenth."""
    return int(seconds * 10_000 + 0.5) / 10


def _quoted(value: object) -> str:
    text = printable(str(value))
    return f'"{text}"' if " " in text else text
