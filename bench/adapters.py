"""What the scanners cost per piece of text, and that the cost does not grow with the text.

    python bench/adapters.py [--sizes 16,64,128,512] [--formats qwen3_xml,hermes]

An answer with one long string argument, cut into pieces of four characters as an
engine streams it, goes through the scanner alone. The last column is a whole
translation's share: thinking splitter and scanner together, on plain text.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy.adapters.reasoning import KINDS as FAMILIES
from proxy.adapters.reasoning import ReasoningSplitter
from proxy.adapters.scanning import AnswerScanner
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.render import Call, render_calls
from proxy.adapters.tool_calls.scanner import ToolScanner
from proxy.adapters.tool_calls.tools import Tools

PIECE = 4
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "write",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
            },
        },
    }
]
# Code with quotes, tags, entities and line breaks, as an agent writes files.
CODE = 'if a < b and "x" in c:\n    print(f"<b>{a}</b> &amp; {b[0]}")  # 100 %\n\treturn {"k": [1, 2]}\n'
PROSE = "The function reads the file, sorts its lines and writes them back; nothing else happens. "


def filled(text: str, size: int) -> str:
    return (text * (size // len(text) + 1))[:size]


def pieces(text: str) -> Iterable[str]:
    return (text[at : at + PIECE] for at in range(0, len(text), PIECE))


def scanner(name: str) -> ToolScanner:
    ids = count()
    return ToolScanner(KINDS[name], Tools(TOOLS), new_id=lambda: f"call_{next(ids)}")


def cost(scan: ToolScanner | AnswerScanner, text: str) -> float:
    """Microseconds per piece."""
    cut = list(pieces(text))
    began = time.process_time()
    for piece in cut:
        scan.feed(piece)
    scan.finish()
    return (time.process_time() - began) / len(cut) * 1e6


def argument(name: str, size: int) -> float:
    call = Call("c", "write", {"path": "a.py", "content": filled(CODE, size)})
    return cost(scanner(name), render_calls(KINDS[name], [call]))


def prose(name: str, size: int) -> float:
    return cost(scanner(name), filled(PROSE, size))


def both(name: str, size: int) -> float:
    tools = scanner(name)
    family = FAMILIES[KINDS[name].reasoning or "think"]
    splitter = ReasoningSplitter(family, start_in_reasoning=True, calls=tools)
    text = filled(PROSE, size // 2) + family.close[0] + filled(PROSE, size // 2)
    return cost(AnswerScanner(splitter, tools), text)


ROWS = (("argument", argument), ("plain text", prose), ("thinking and text", both))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="16,64,128,512", help="KiB of text")
    parser.add_argument("--formats", default="qwen3_xml,glm_xml,dsml,minimax_m2,hermes,kimi_k2,toolify_xml")
    options = parser.parse_args()
    sizes = [int(size) * 1024 for size in options.sizes.split(",")]
    print("µs of CPU per piece of four characters")
    print(f"{'':32}" + "".join(f"{size // 1024:>8} K" for size in sizes))
    for name in options.formats.split(","):
        for title, measure in ROWS:
            figures = [min(measure(name, size) for _ in range(2)) for size in sizes]
            print(f"{name + ', ' + title:32}" + "".join(f"{figure:10.1f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
