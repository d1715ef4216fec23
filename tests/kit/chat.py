"""Chat answers for tests of the translator: how upstreams write them, and how a client reads them."""

import json
from dataclasses import dataclass, field
from itertools import count

import orjson

from proxy.adapters.base import ReasoningOptions, ToolCallOptions
from proxy.adapters.chat import ChatAdapters

ENVELOPE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
DONE = b"data: [DONE]\n\n"


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does {name}.", "parameters": parameters},
    }


TOOLS = [
    tool("write", path={"type": "string"}, content={"type": "string"}, times={"type": "integer"}),
    tool("read", path={"type": "string"}),
]


def chance():
    """Different bytes for each call, the same in each run."""
    number = count(1)
    return lambda size: (next(number) * 0x9E3779B97F4A7C15F39CC0605CEDC834).to_bytes(64, "big")[-size:]


def adapters(format="qwen3_xml", *, reasoning=None, mode="template", merge_system=False, **options):
    """The adapters of a model; `reasoning` is the options of that adapter."""
    return ChatAdapters(
        tools=ToolCallOptions(format=format, mode=mode, **options) if format is not None else None,
        reasoning=ReasoningOptions(**reasoning) if reasoning is not None else None,
        merge_system=merge_system,
        secret=b"secret",
        chance=chance(),
    )


def request(*messages, tools=TOOLS, **fields):
    messages = list(messages) or [{"role": "user", "content": "Hi"}]
    body = {"model": "m", "messages": messages, "stream": True, **fields}
    return body | {"tools": tools} if tools else body


def event(delta, finish=None, *, index=0, choice=None, **fields):
    """One chunk with one choice."""
    made = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **(choice or {})}
    return b"data: %b\n\n" % orjson.dumps({**ENVELOPE, "choices": [made], **fields})


def stream(*pieces, finish="stop", **fields):
    """The events of an answer with these pieces of text."""
    return [
        event({"role": "assistant", "content": ""}, **fields),
        *(event({"content": piece}, **fields) for piece in pieces),
        event({}, finish, **fields),
        DONE,
    ]


def whole(text, finish="stop", **message):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    return orjson.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": {"x": 1}}
    )


def data_of(written):
    """The data of the events in what was written, parsed; [DONE] as it is."""
    found = []
    for block in written.split(b"\n\n"):
        assert b"\n" not in block
        if block.startswith(b"data: "):
            found.append(block[6:] if block == b"data: [DONE]" else json.loads(block[6:]))
    return found


@dataclass
class Seen:
    """What a client makes of one choice, checked against the contract on the way."""

    role: str | None = None
    content: str = ""
    reasoning: str = ""
    calls: list = field(default_factory=list)
    finish: str | None = None

    def take(self, choice):
        assert self.finish is None, "nothing comes behind the finish reason"
        delta = choice["delta"]
        if "role" in delta:
            assert self.role is None, "the role comes once"
            self.role = delta["role"]
        elif delta:
            assert self.role is not None, "the role comes first"
        self.content += delta.get("content") or ""
        self.reasoning += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
        self.finish = choice["finish_reason"]

    def _take_call(self, call):
        if "id" in call:
            assert call["index"] == len(self.calls), "calls begin in order"
            assert isinstance(call["id"], str)
            assert call["type"] == "function"
            assert call["function"]["name"]
            assert call["function"]["arguments"] == ""
            self.calls.append([call["function"]["name"], "", call["id"]])
        else:
            assert call["index"] == len(self.calls) - 1, "calls do not mix"
            assert call["function"].keys() == {"arguments"}
            self.calls[-1][1] += call["function"]["arguments"]

    @property
    def called(self):
        """Names and decoded arguments."""
        return [(name, json.loads(arguments)) for name, arguments, _ in self.calls]


def seen(written, index=0):
    """The view of one choice of a stream."""
    found = Seen()
    for chunk in data_of(written):
        if chunk != b"[DONE]":
            for choice in chunk.get("choices", ()):
                if choice["index"] == index:
                    found.take(choice)
    ids = [id for _, _, id in found.calls]
    assert len(set(ids)) == len(ids), "ids are unique"
    return found


def fed(translator, events, *, cut=False):
    """All that a translator writes for these events."""
    return b"".join([translator.feed(each) for each in events]) + translator.finish(cut)
