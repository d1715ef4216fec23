"""What a translated stream costs: bytes of SSE in, bytes of SSE out, everything in between.

    python bench/translate.py [--sizes 16,64,512] [--formats qwen3_xml,hermes]

Chunks of four characters as vLLM sends them go through SSE, JSON, the scanners and
back. At most 15 µs per chunk is the promise for XML and JSON bodies, whatever the
length of the argument. `bench/adapters.py` has the scanners alone.
"""

import argparse
import secrets
import sys
import time
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy.adapters.base import ReasoningOptions, ToolCallOptions
from proxy.adapters.chat import ChatAdapters
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.render import Call, render_calls

PIECE = 4
TRIGGER = "<Function_AB1c_Start/>"
PROPERTIES = {"path": {"type": "string"}, "content": {"type": "string"}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "write", "parameters": {"type": "object", "properties": PROPERTIES}},
    }
]
CODE = 'if a < b and "x" in c:\n    print(f"<b>{a}</b> &amp; {b[0]}")  # 100 %\n\treturn {"k": [1, 2]}\n'
ENVELOPE = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "m",
}


def chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return b"data: %b\n\n" % orjson.dumps({**ENVELOPE, "choices": [choice]})


def chunks(text: str) -> list[bytes]:
    return [chunk(text[at : at + PIECE]) for at in range(0, len(text), PIECE)]


def cost(adapters: ChatAdapters, text: str) -> float:
    """Microseconds of CPU per chunk."""
    plan = adapters.plan({"messages": [], "tools": TOOLS})
    assert plan is not None
    translator, given = plan.answer_stream(), chunks(text)
    began = time.process_time()
    for each in given:
        translator.feed(each)
    translator.finish()
    return (time.process_time() - began) / len(given) * 1e6


def adapters(format: str, *, thinks: bool = False) -> ChatAdapters:
    trigger = TRIGGER if KINDS[format].trigger else None
    return ChatAdapters(
        tools=ToolCallOptions(format=format, trigger=trigger),
        reasoning=ReasoningOptions(start_in_reasoning=True) if thinks else None,
        secret=b"secret",
        chance=secrets.token_bytes,
    )


def argument(format: str, text: str) -> float:
    made = adapters(format)
    markup = render_calls(KINDS[format], [Call("c", "write", {"path": "a.py", "content": text})])
    return cost(made, f"{TRIGGER}\n{markup}" if KINDS[format].trigger else markup)


def plain(format: str, text: str) -> float:
    return cost(adapters(format), text)


def thinking(format: str, text: str) -> float:
    return cost(adapters(format, thinks=True), text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="16,64,512", help="KiB of text")
    parser.add_argument(
        "--formats", default="qwen3_xml,glm_xml,dsml,minimax_m2,anthropic_xml,hermes,kimi_k2,toolify_xml"
    )
    options = parser.parse_args()
    sizes = [int(size) * 1024 for size in options.sizes.split(",")]
    print("µs of CPU per chunk of four characters")
    print(f"{'':28}" + "".join(f"{size // 1024:>8} K" for size in sizes))
    for format in options.formats.split(","):
        for title, measure in (("argument", argument), ("plain text", plain), ("thinking", thinking)):
            texts = ((CODE * (size // len(CODE) + 1))[:size] for size in sizes)
            figures = [min(measure(format, text) for _ in range(2)) for text in texts]
            print(
                f"{format + ', ' + title:28}" + "".join(f"{figure:10.1f}" for figure in figures), flush=True
            )


if __name__ == "__main__":
    main()
