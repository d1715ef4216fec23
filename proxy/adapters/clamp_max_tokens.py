"""Lowers a request's limit on its answer to what the context length leaves.

Engines refuse a request whose prompt and `max_tokens` together exceed the context,
however short the answer would have been, and agents send the same large limit with
every turn. Only the upstream can count a prompt, so ours is an estimate from its
bytes, at a rate that is learned from what the upstream counted before. Of the body
nothing changes but the digits of the number.
"""

import re

import orjson

# Bytes a token, until the upstream has counted: JSON with code in it has 3 to 5 with today's
# vocabularies. The first is for what must fit, the second for what still may.
CAREFUL_BYTES_PER_TOKEN = 3.0
HOPEFUL_BYTES_PER_TOKEN = 5.0

# How a rate is followed: the gains that TCP uses for its round trips (RFC 6298), and twice the spread.
_GAIN, _SPREAD_GAIN, _SPREADS = 1 / 8, 1 / 4, 2
# Two requests of one agent differ by a percent in their rate, the first ones by some more.
_FIRST_SPREAD, _LEAST_SPREAD = 1 / 16, 1 / 128
# In a shorter prompt the chat template's own tokens and the keys of the JSON decide the rate.
MIN_LEARNED_BYTES = 2048
# No vocabulary has longer tokens on average, and none needs more than one for a byte.
_RATES = (1 / 16, 1.0)

# An answer that the careful estimate would cut shorter than this is worth a try: it holds a tool call.
USEFUL_TOKENS = 1024

# What an image of a megapixel costs with most models; its base64 says nothing about that.
MEDIA_TOKENS = 1600
_MEDIA = re.compile(rb'"data(?::[^",\\]{1,128},|"\s*:\s*")[A-Za-z0-9+/=_\-]{1024,}"')

# The Responses API's way to go on with a conversation that the upstream keeps: its tokens are counted,
# its bytes are not here.
_GOES_ON = re.compile(rb'"(?:previous_response_id|conversation)"\s*:\s*["{]')

# In front of the number stands nothing else, and behind it nothing that makes it another one.
_LIMIT = re.compile(rb'"max_(?:completion_|output_)?tokens"\s*:\s*([1-9][0-9]{0,17})(?=\s*[,}])')
_PREFIX = b'"max_'
_BLANKS = b" \t\r\n"
# Tools and metadata may have members of these names too; no request has many.
MAX_CANDIDATES = 16
# What is parsed at most to see where a member stands; parsed JSON takes up to 30 times its size.
MAX_PARSED = 4 * 1024 * 1024


class TokenRate:
    """Tokens a byte of one model's prompts comes to."""

    __slots__ = ("_mean", "_spread")

    def __init__(self) -> None:
        self._mean = 0.0
        self._spread = 0.0

    def learn(self, size: int, tokens: int) -> None:
        """A prompt of so many bytes had so many tokens."""
        if size < MIN_LEARNED_BYTES or tokens <= 0:
            return
        rate = min(max(tokens / size, _RATES[0]), _RATES[1])
        if not self._mean:
            self._mean, self._spread = rate, rate * _FIRST_SPREAD
            return
        self._spread += (abs(rate - self._mean) - self._spread) * _SPREAD_GAIN
        self._mean += (rate - self._mean) * _GAIN

    def most(self, size: int) -> int:
        """Tokens that so many bytes will hardly exceed."""
        return round(size * (self._mean + self._width if self._mean else 1 / CAREFUL_BYTES_PER_TOKEN))

    def least(self, size: int) -> int:
        """Tokens that so many bytes will hardly fall short of."""
        return round(size * (self._mean - self._width if self._mean else 1 / HOPEFUL_BYTES_PER_TOKEN))

    @property
    def _width(self) -> float:
        return _SPREADS * max(self._spread, self._mean * _LEAST_SPREAD)


class ClampMaxTokens:
    """Of one model; what it learns, by `rate`, holds for all its requests."""

    def __init__(self, *, context_length: int, margin: int, rate: TokenRate) -> None:
        self._room = context_length - margin
        self._rate = rate

    def rewrite(self, body: bytes) -> bytes:
        """The body with no limit above what is left; the same object where none is."""
        places = [found for found in _limits(body) if _is_own_member(body, found.start())]
        if not places:
            return body
        left = self._left(body)
        for found in reversed(places):
            if int(found[1]) > left:
                body = b"%b%d%b" % (body[: found.start(1)], left, body[found.end(1) :])
        return body

    def learn(self, body: bytes, tokens: int) -> None:
        """The upstream counted so many tokens in this body's prompt."""
        size, media = _sizes(body)
        if not media and _GOES_ON.search(body) is None:
            self._rate.learn(size, tokens)

    def _left(self, body: bytes) -> int:
        size, media = _sizes(body)
        room = self._room - media * MEDIA_TOKENS
        careful, hopeful = room - self._rate.most(size), room - self._rate.least(size)
        return max(careful, min(hopeful, USEFUL_TOKENS), 1)


def _sizes(body: bytes) -> tuple[int, int]:
    """Bytes that are text, and how many images and the like stand beside it."""
    if b'"data' not in body:
        return len(body), 0
    media = [found.end() - found.start() for found in _MEDIA.finditer(body)]
    return len(body) - sum(media), len(media)


def _limits(body: bytes) -> "list[re.Match[bytes]]":
    found: list[re.Match[bytes]] = []
    at = body.find(_PREFIX)
    for _ in range(MAX_CANDIDATES):
        if at < 0:
            break
        match = _LIMIT.match(body, at)
        if match is not None:
            found.append(match)
        at = body.find(_PREFIX, at + 1)
    return found


def _is_own_member(body: bytes, at: int) -> bool:
    """Whether the key at `at` is the outermost object's: what stands in front of it, or behind, says so."""
    head = body[:at].rstrip(_BLANKS)
    if head[-1:] not in (b"{", b","):
        return False
    rest = head.removesuffix(b",") + b"}" if at <= len(body) // 2 else b"{" + body[at:]
    if len(rest) > MAX_PARSED:
        return False
    try:
        orjson.loads(rest)
    except orjson.JSONDecodeError:
        return False
    return True
