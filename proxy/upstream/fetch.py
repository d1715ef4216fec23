"""JSON over HTTP for everything that is not traffic: bounded, in time, never following a redirect."""

import ssl as tls
from collections.abc import Mapping

import aiohttp
import orjson

from proxy.upstream.ask import NoAnswer

# The slices of a thousand pods in Kubernetes' long-winded JSON take some 2 MB.
MAX_ANSWER_BYTES = 8 * 1024 * 1024


# What is kept of an answer that is none: its reason stands at its beginning.
MAX_REASON_BYTES = 4096


class Unwelcome(NoAnswer):
    """An answer, but not with a 200; `reason` is how its body begins."""

    def __init__(self, status: int, reason: bytes) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.reason = reason


class Fetcher:
    """One session for all; who is asked twice a minute needs no idle connection."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def json(
        self,
        url: str,
        *,
        within: float,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: object = None,
        form: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> object:
        """The parsed answer; raises NoAnswer. Neither URL nor headers nor what was sent are in its text."""
        try:
            async with self._open().request(
                method,
                url,
                headers=headers,
                params=params,
                data=form if body is None else orjson.dumps(body),
                ssl=ssl if ssl is not None else True,
                timeout=aiohttp.ClientTimeout(total=within),
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise Unwelcome(answer.status, await answer.content.read(MAX_REASON_BYTES))
                return orjson.loads(await _read(answer))
        except TimeoutError as error:
            raise NoAnswer("no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(type(error).__name__) from error
        except ValueError as error:
            raise NoAnswer("not JSON") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No proxy from the environment and no cookies: what is asked is what the file says.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=16),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json"},
                trust_env=False,
            )
        return self._session


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    pieces = bytearray()
    async for piece in answer.content.iter_any():
        pieces += piece
        if len(pieces) > MAX_ANSWER_BYTES:
            raise NoAnswer("the answer is too large")
    return bytes(pieces)
