"""Translates the stream of a chat answer, chunk by chunk.

A chunk in which nothing changes goes on byte for byte. One that is rewritten
keeps its envelope (id, model and all that is unknown here); what it carries
beside the choices, usage above all, stays on the last chunk made from it.
"""

import logging

from proxy.adapters.base import Counts
from proxy.adapters.chat_choice import Choice, Scanners, place_of
from proxy.adapters.chat_deltas import REASONING_FIELDS, Emitter
from proxy.adapters.events import Event, Text
from proxy.errors import UpstreamFailed
from proxy.wire.openai import DONE, Json, encoded, parsed
from proxy.wire.sse import EventTooLarge, SseDecoder, SseEvent, encode

log = logging.getLogger(__name__)

# n=128 is what OpenAI allows; an upstream that counts on is not answering the request.
MAX_CHOICES = 128

# What every chunk of an answer repeats; a field that is null says nothing and is repeated too.
_ENVELOPE = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "provider"})
_CHOICE_FIELDS = frozenset({"index", "delta", "logprobs", "finish_reason"})


class ChatStream:
    """Bytes in, bytes out; `finish` once after the last `feed`."""

    def __init__(
        self, scanners: Scanners, emitter: Emitter, *, named: bool = False, format: str = ""
    ) -> None:
        """`named`: the request named the tool, so its answer does not end with `tool_calls`."""
        self.silent = False
        self._failures = 0
        self._scanners = scanners
        self._emitter = emitter
        self._named = named
        self._format = format
        self._decoder = SseDecoder()
        self._choices: dict[int, Choice] = {}
        self._last: Json = {"object": "chat.completion.chunk"}
        self._failed = False

    @property
    def counts(self) -> Counts:
        counts = self._scanners.counts
        counts.failures += self._failures
        return counts

    def feed(self, data: bytes) -> bytes:
        """The bytes to write for the next piece of the upstream's stream."""
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise UpstreamFailed(f"In the upstream's stream {error}.") from error
        written = b"".join([self._event(event) for event in events])
        if events:
            self.silent = not written
        return written

    def finish(self, cut: bool = False) -> bytes:
        """What was held back: the stream is over, or `cut` off."""
        rest = b"" if cut else b"".join([self._event(event) for event in self._decoder.finish()])
        released = self._released()
        # An upstream may stop in the middle of an event; ours must not become a part of it.
        gap = b"\n\n" if rest and released and not rest.endswith(b"\n\n") else b""
        return rest + gap + released

    def _event(self, event: SseEvent) -> bytes:
        if event.data is None or self._failed:
            return event.raw
        if event.data == DONE:
            return self._released() + event.raw
        chunk = parsed(event.data)
        if chunk is None:
            return event.raw
        if chunk.get("error"):
            return self._released() + event.raw
        return self._guarded(chunk, event) if isinstance(chunk.get("choices"), list) else event.raw

    def _guarded(self, chunk: Json, event: SseEvent) -> bytes:
        try:
            return self._chunk(chunk, event)
        except Exception as error:
            # Whatever is wrong with an adapter, the answer goes on without it.
            held = self._give_up(error)
        try:
            return held + self._chunk(chunk, event)
        except Exception:
            self._failed = True
            return held + event.raw

    def _chunk(self, chunk: Json, event: SseEvent) -> bytes:
        choices: list[Json] = []
        changed = False
        self._last = chunk
        for given in chunk["choices"]:
            made = self._choice(given) if isinstance(given, dict) else None
            changed = changed or made is not None
            choices += [given] if made is None else made
        return self._rewritten(chunk, choices, event) if changed else event.raw

    def _rewritten(self, chunk: Json, choices: list[Json], event: SseEvent) -> bytes:
        """Each choice as a chunk of its own; what else the chunk carried goes with the last."""
        if len(choices) == 1:
            return _encoded([chunk | {"choices": choices}], event)
        envelope = _envelope(chunk)
        rest = {key: value for key, value in chunk.items() if key not in envelope and key != "choices"}
        if not choices:
            if not rest:
                return b""
            choices = [{"index": 0, "delta": {}, "finish_reason": None}]
        chunks = [envelope | {"choices": [choice]} for choice in choices]
        chunks[-1] |= rest
        return _encoded(chunks, event)

    # one choice of a chunk

    def _choice(self, given: Json) -> list[Json] | None:
        """The choices to write in its place, one a chunk; None if it stays as it is."""
        delta, choice = given.get("delta"), self._choice_at(given.get("index"))
        if choice is None or not isinstance(delta, dict):
            return None
        was_active, reason = choice.active, given.get("finish_reason")
        thinking = self._thinking(choice, delta)
        text, events = self._scanned(choice, delta, reason)
        events = self._emitter.kept(events)
        ending = choice.ending(reason)
        drops_logprobs = was_active and given.get("logprobs") is not None
        if thinking is None and ending == reason and not drops_logprobs and _is_same(events, text):
            choice.has_role = True
            return None
        deltas = self._emitter.deltas(events)
        if thinking:
            deltas.insert(0, thinking)
        rest = _left(delta, scanned=bool(text), renamed=thinking is not None)
        if rest:
            deltas.append(rest)
        _add_role(choice, delta, deltas)
        return _choices(given, deltas, ending, keeps_logprobs=not was_active)

    def _choice_at(self, index: object) -> Choice | None:
        number = index if isinstance(index, int) else 0
        choice = self._choices.get(number)
        if choice is None and len(self._choices) < MAX_CHOICES:
            choice = self._choices[number] = Choice(self._scanners, named=self._named)
        return choice

    def _thinking(self, choice: Choice, delta: Json) -> Json | None:
        """The upstream's own reasoning fields, where they must be renamed or dropped."""
        if delta.get("reasoning_content") or delta.get("reasoning"):
            choice.reasons_natively()
            return self._emitter.renamed(delta)
        return None

    def _scanned(self, choice: Choice, delta: Json, reason: str | None) -> tuple[str, list[Event]]:
        """The text that was scanned, and what was found in it."""
        events: list[Event] = []
        if choice.active and (delta.get("tool_calls") or delta.get("function_call")):
            events = choice.leave()
        content = delta.get("content")
        text = content if choice.active and isinstance(content, str) else ""
        if text:
            events += choice.feed(text)
        if reason is not None and choice.active:
            events += choice.finish(reason)
        return text, events

    # ends

    def _released(self) -> bytes:
        """All that is held back, since no more will come."""
        written: list[bytes] = []
        for index, choice in self._choices.items():
            if choice.active:
                try:
                    deltas = self._emitter.deltas(self._emitter.kept(choice.finish(None)))
                except Exception as error:
                    written.append(self._give_up(error))
                else:
                    written.append(self._of_ours(index, deltas))
        return b"".join(written)

    def _give_up(self, error: Exception) -> bytes:
        """Scan no more, and give back as content what was held."""
        self._failures += 1
        log.error("an adapter failed", extra={"format": self._format, "error": place_of(error)})
        held = [(index, choice.give_up()) for index, choice in self._choices.items()]
        return b"".join([self._of_ours(index, [{"content": text}]) for index, text in held if text])

    def _of_ours(self, index: int, deltas: list[Json]) -> bytes:
        """Chunks that no chunk of the upstream stands for."""
        envelope = _envelope(self._last)
        choices = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
        return _encoded([envelope | {"choices": [choice]} for choice in choices], SseEvent())


def _encoded(chunks: list[Json], event: SseEvent) -> bytes:
    """Chunks as events with the fields of the one that they stand for."""
    if event.event or event.id is not None or event.retry is not None:
        fields = event.event, event.id, event.retry
        return b"".join([encode(SseEvent(encoded(chunk), *fields)) for chunk in chunks])
    return b"".join([b"data: %b\n\n" % encoded(chunk) for chunk in chunks])


def _envelope(chunk: Json) -> Json:
    return {key: value for key, value in chunk.items() if value is None or key in _ENVELOPE}


def _is_same(events: list[Event], text: str) -> bool:
    """Do the events say no more than the text did?"""
    if not events:
        return not text
    event = events[0]
    return len(events) == 1 and isinstance(event, Text) and event.text == text


def _left(delta: Json, *, scanned: bool, renamed: bool) -> Json:
    """What a delta has beside what was translated."""
    if scanned and len(delta) == 1:
        return {}
    gone = {"role"}
    if scanned:
        gone.add("content")
    if renamed:
        gone.update(REASONING_FIELDS)
    return {key: value for key, value in delta.items() if value and key not in gone}


def _add_role(choice: Choice, delta: Json, deltas: list[Json]) -> None:
    """The first delta of a choice says whose it is, whatever became of its text."""
    if choice.has_role:
        return
    if deltas:
        choice.has_role = True
        deltas[0] = {"role": delta.get("role") or "assistant"} | deltas[0]
    elif delta.get("role"):
        choice.has_role = True
        deltas.append({"role": delta["role"], "content": ""})


def _choices(given: Json, deltas: list[Json], ending: str | None, *, keeps_logprobs: bool) -> list[Json]:
    """Choices with these deltas; what else the choice carried goes with the last."""
    rest = {key: value for key, value in given.items() if value is not None and key not in _CHOICE_FIELDS}
    if keeps_logprobs and given.get("logprobs") is not None:
        rest["logprobs"] = given["logprobs"]
    if ending is not None or (rest and not deltas):
        deltas.append({})
    index = given.get("index", 0)
    choices: list[Json] = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    if choices:
        choices[-1] |= rest
        choices[-1]["finish_reason"] = ending
    return choices
