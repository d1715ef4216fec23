"""Posts usage records as JSON to a receiver, signed.

Only a 2xx is a success; redirects are not followed, so that records and signature go
nowhere but to the configured address. The address may hold a secret and is never logged.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from operator import itemgetter

import aiohttp

from proxy.clock import Clock, wall
from proxy.sinks.sink import Delivery
from proxy.usage.record import Format, UsageRecord

# A receiver that says this may mean the record, not itself.
_REFUSALS = frozenset({400, 413, 415, 422})

# Posts under way at once where each record has its own: 8 at 20 ms carry 400 records/s.
CONCURRENT_POSTS = 8

# Of a line, with its id; what may follow there belongs to the record as well.
_beginning = itemgetter(slice(len(b'{"id":"') + 32))

# Read of an answer, so that its connection can be used again; receivers answer "ok".
MAX_ANSWER_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Outcome:
    reason: str = ""  # empty: delivered
    is_refused: bool = False
    retry_after: float | None = None

    @property
    def is_trouble(self) -> bool:
        """The receiver's, not the record's: what comes next would meet it too."""
        return bool(self.reason) and not self.is_refused


class Webhook:
    """With a `batch_size` of 1 a body is one record, else an array of up to so many."""

    def __init__(
        self,
        name: str,
        *,
        url: str,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 3.0,
        batch_size: int = 1,
        format: Format = "nested",
        clock: Clock = wall,
    ) -> None:
        self.name = name
        self._url = url
        self._secret = secret.encode() if secret else b""
        self._headers = {"Content-Type": "application/json", "User-Agent": "llmproxy", **(headers or {})}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._batch_size = batch_size
        self._format = format
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, lines: Sequence[bytes], *, singly: bool = False) -> Delivery:
        size = 1 if singly else self._batch_size
        groups = [lines[start : start + size] for start in range(0, len(lines), size)]
        at_once = CONCURRENT_POSTS if size == 1 else 1
        outcomes: list[_Outcome] = []
        while len(outcomes) < len(groups) and not any(outcome.is_trouble for outcome in outcomes):
            some = groups[len(outcomes) : len(outcomes) + at_once]
            outcomes += await asyncio.gather(*map(self._post, some))
        return _delivery(groups, outcomes)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, group: Sequence[bytes]) -> _Outcome:
        try:
            body = self._body(group)
        except ValueError:
            return _Outcome("unreadable record", is_refused=True)
        try:
            async with self._open_session().post(
                self._url,
                data=body,
                headers=self._signed(body, group),
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                return await _outcome(response, self._clock())
        except (aiohttp.ClientError, OSError, ValueError) as exc:  # TimeoutError is an OSError
            return _Outcome(type(exc).__name__)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONCURRENT_POSTS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding"),
            )
        return self._session

    def _body(self, group: Sequence[bytes]) -> bytes:
        if self._format == "flat":
            group = [UsageRecord.from_json(line).to_json("flat") for line in group]
        return group[0] if self._batch_size == 1 else b"[%b]" % b",".join(group)

    def _signed(self, body: bytes, group: Sequence[bytes]) -> dict[str, str]:
        headers = {**self._headers, "X-LLMProxy-Delivery": delivery_id(group)}
        if self._secret:
            headers["X-LLMProxy-Signature"] = signature(self._secret, int(self._clock()), body)
        return headers


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """`t=TIMESTAMP,v1=HEX`, HEX being HMAC-SHA256 of `TIMESTAMP.BODY`."""
    digest = hmac.new(secret, b"%d." % timestamp, hashlib.sha256)
    digest.update(body)
    return f"t={timestamp},v1={digest.hexdigest()}"


def delivery_id(group: Sequence[bytes]) -> str:
    """The same for the same records: a record's own id, or a digest of several."""
    if len(group) == 1:
        return group[0][len(b'{"id":"') : group[0].find(b'"', len(b'{"id":"'))].decode()
    return hashlib.sha256(b"".join(map(_beginning, group))).hexdigest()[:32]


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header: a number, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value[:12])
    try:
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None


async def _outcome(response: aiohttp.ClientResponse, now: float) -> _Outcome:
    status = response.status
    if 200 <= status < 300:
        with suppress(aiohttp.ClientError, OSError):
            await response.content.read(MAX_ANSWER_BYTES)
        return _Outcome()
    return _Outcome(
        f"status {status}", status in _REFUSALS, retry_after(response.headers.get("Retry-After"), now)
    )


def _delivery(groups: Sequence[Sequence[bytes]], outcomes: Sequence[_Outcome]) -> Delivery:
    """`outcomes` are those of the first groups; the others were not tried."""
    failed = [(group, outcome) for group, outcome in zip(groups, outcomes, strict=False) if outcome.reason]
    untried = groups[len(outcomes) :]
    return Delivery(
        left=[line for group in [*(group for group, _ in failed), *untried] for line in group],
        refused=[line for group, outcome in failed if outcome.is_refused for line in group],
        reason=next((outcome.reason for _, outcome in failed), ""),
        retry_after=max((outcome.retry_after or 0.0 for _, outcome in failed), default=None),
    )
