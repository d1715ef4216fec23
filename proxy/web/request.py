"""A request as aiohttp's application knows it, filled in when somebody looks.

Forwarding reads the raw head that stands beside it; only pages want the rest,
so only they pay for it.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.wire.http1 import Kind, RequestHead

if TYPE_CHECKING:
    from proxy.web.downstream import DownstreamConnection
    from proxy.web.exchange import Exchange

_VERSIONS = (HttpVersion10, HttpVersion11)


class Request(web.Request):
    """What middlewares and handlers are given; `exchange` is there from the first middleware on."""

    ATTRS = web.Request.ATTRS | {"exchange", "connection", "_head"}
    exchange: "Exchange"

    def __init__(self, connection: "DownstreamConnection", head: RequestHead) -> None:
        self.connection = connection
        self._head = head

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there: what aiohttp's constructor sets is fetched up now."""
        if name not in self.ATTRS or "_message" in self.__dict__:
            raise AttributeError(name)
        self._fill()
        return getattr(self, name)

    def _fill(self) -> None:
        connection = self.connection
        super().__init__(
            _message(self._head),
            connection.payload(),  # type: ignore[arg-type]  # it needs readany
            connection,  # type: ignore[arg-type]  # it has what aiohttp asks it for
            StreamWriter(connection, connection.loop),  # type: ignore[arg-type]  # transport and _drain_helper
            None,  # type: ignore[arg-type]
            connection.loop,
            state={},
        )


def exchange_of(request: web.Request) -> "Exchange":
    """For pages, which are called by aiohttp's router."""
    return cast(Request, request).exchange


def _message(head: RequestHead) -> RawRequestMessage:
    # Expect is answered by `read_body`, after authentication; aiohttp would answer it before.
    headers = CIMultiDict(
        (line.name.decode("ascii"), line.value.decode("utf-8", "surrogateescape"))
        for line in head.lines
        if line.kind is not Kind.EXPECT and line.kind is not Kind.LENGTH
    )
    if head.content_length is not None:
        headers["Content-Length"] = str(head.content_length)
    return RawRequestMessage(
        head.method.decode("ascii"),
        head.target.decode("utf-8", "surrogateescape"),
        _VERSIONS[head.minor],
        CIMultiDictProxy(headers),
        (),
        not head.keep_alive,
        None,
        False,
        head.chunked,
        _url(head.target),
    )


@lru_cache(maxsize=256)  # pages are few; odd targets only cost their own parsing
def _url(target: bytes) -> URL:
    path, _, query = target.decode("utf-8", "surrogateescape").partition("?")
    return URL.build(path=path, query_string=query, encoded=True)
