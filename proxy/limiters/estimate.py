"""How many tokens a request may cost, guessed from its bytes before it runs.

The guess only has to be near: it is settled with what was really used. So the
body is not parsed; its length stands for the prompt, and the limit on the
answer is looked for where clients put it, near either end of the body.
"""

import re

# Four bytes per token is what OpenAI tells for English text; JSON escapes and
# tool schemas are denser, other scripts thinner.
BYTES_PER_TOKEN = 4
# What is searched at either end. OpenCode and the AI SDK write max_tokens before the
# messages, openai-python after them but before the tools (30 KiB in a coding agent).
# Both together take 16 us where nothing is found, 4 us where clients write it.
HEAD_BYTES = 4 * 1024
TAIL_BYTES = 48 * 1024
# Look-alikes examined per end, against bodies that repeat the name.
MAX_HITS = 16
# Agents send the model's whole output limit with every request (OpenCode: 32,000)
# and use a few hundred. Reserving it all would let one stream lock out its
# own sub-agents; what really was used is charged in the end.
MAX_COMPLETION_TOKENS = 4096

# Inside a JSON string the quotes would be escaped, so only a key can match.
_PREFIX = b'"max_'
_LIMIT = re.compile(
    rb'"max_(?:completion_|output_)?tokens"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}([0-9]{1,9})[^0-9.eE]'
)


def estimate_tokens(body: bytes) -> int:
    """Tokens to reserve for this request body: prompt by length, completion by its limit."""
    return len(body) // BYTES_PER_TOKEN + min(_completion_limit(body), MAX_COMPLETION_TOKENS)


def _completion_limit(body: bytes) -> int:
    """The last limit on the answer found in the head of the body, else the last one in its tail."""
    size = len(body)
    limit = _last(body, 0, min(size, HEAD_BYTES))
    if limit is None and size > HEAD_BYTES:
        # a key that the first window cut in two is met again
        limit = _last(body, max(HEAD_BYTES - len(_PREFIX), size - TAIL_BYTES), size)
    return limit or 0


def _last(body: bytes, start: int, end: int) -> int | None:
    """The last one, which of two members of one name is the one most servers take."""
    for _ in range(MAX_HITS):
        end = body.rfind(_PREFIX, start, end)
        if end < 0:
            return None
        if match := _LIMIT.match(body, end):
            return int(match[1])
    return None
