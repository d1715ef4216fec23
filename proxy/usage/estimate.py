"""A guess at the tokens of an answer that did not say.

Streams that were cut, engines that count nothing, codings that cannot be read: the
work was done all the same. The guess is flagged in the record.
"""

from proxy.usage.meter import Metered
from proxy.usage.tokens import Usage

# English and code come to some 4 bytes a token with today's vocabularies, a JSON request's
# keys and quotes included; Chinese to 3 to 4.
BYTES_PER_TOKEN = 4

# Most engines send one token an event. Where the text says that there were clearly more
# (several tokens an event), the text is believed.
_COALESCED = 2


def estimate(metered: Metered, request_bytes: int) -> Usage:
    """Tokens of a request of so many body bytes, and of what was relayed of its answer."""
    prompt = _tokens(request_bytes)
    by_text = _tokens(metered.text_bytes)
    completion = by_text if by_text > _COALESCED * metered.deltas else metered.deltas
    return Usage(prompt, completion, prompt + completion)


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)
