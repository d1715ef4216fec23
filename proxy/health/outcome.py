"""How one attempt at an endpoint ended, and whose fault that was.

A client's mistake is no failure of the server's, and a client that left, or a
kept connection that had ended, says nothing at all; only what is left may take
an endpoint out.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """The end of one attempt, as the lease is told. (Strings are hashed in C, other enums in Python.)"""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # 4xx, and what a server calls 500 but is the prompt's fault
    SERVER_ERROR = "server_error"  # 5xx
    OVERLOADED = "overloaded"  # 429, 503: alive, but takes nothing now
    CONNECT_FAILED = "connect_failed"
    RESET = "reset"
    TIMEOUT = "timeout"
    BAD_ANSWER = "bad_answer"
    CLIENT_CLOSED = "client_closed"
    UNRESPONSIVE = "unresponsive"  # it was left while it answered nobody; who noticed that takes it out
    STALE = "stale_connection"  # a kept connection had ended; nothing was sent on it


# The server did its part.
SUCCESSES = frozenset((Outcome.OK, Outcome.CLIENT_ERROR))

# The server did not do its part.
FAILURES = frozenset(
    (
        Outcome.SERVER_ERROR,
        Outcome.OVERLOADED,
        Outcome.CONNECT_FAILED,
        Outcome.RESET,
        Outcome.TIMEOUT,
        Outcome.BAD_ANSWER,
    )
)
