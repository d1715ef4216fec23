"""How an outbound proxy is asked for a way to a server: HTTP's CONNECT, and SOCKS 5.

A talk is a generator. It yields what to send and how much to read next, gets
exactly that, and returns when the way stands; `NoTunnel` says why there is none.
It never reads ahead, because what follows the proxy's last byte is the server's.
"""

import re
from base64 import b64encode
from collections.abc import Generator
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

# Where a URL names no port: HTTP's own, and the one IANA gave to SOCKS.
DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

# RFC 1929 counts user and password in one byte each.
MAX_SOCKS_CREDENTIAL_BYTES = 255

# Squid's longest refusals are under 1 KiB of head; a page behind it is never read.
MAX_HEAD_BYTES = 16 * 1024

# Asks for everything to the end of a head.
HEAD = 0

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r\n")

# RFC 1928, 6. Nothing of what a server sends is in an error's text but these words and numbers.
_REPLIES = {
    1: "it failed",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}
_NO_CREDENTIALS, _USER_AND_PASSWORD, _NOTHING_SUITS = 0, 2, 255
_IPV4, _NAME, _IPV6 = 1, 3, 4

Talk = Generator[tuple[bytes, int], bytes, None]


class NoTunnel(Exception):
    """The proxy did not make a way; the text says why and holds no credential."""


class ServerRefused(NoTunnel):
    """The proxy could not reach this address; another one of the same server may do."""


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """Where an outbound proxy is and how it is spoken to."""

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca_file: str = ""  # further authorities for an https proxy

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def resolves(self) -> bool:
        """Whether the proxy gets names; else it gets addresses that were looked up here."""
        return self.scheme != "socks5"

    def talk(self, host: str, port: int) -> Talk:
        """The way to this server, a name or an address."""
        if self.scheme in ("http", "https"):
            return _connect(self, host, port)
        return _socks(self, host, port)


def outbound_proxy(url: str, ca_file: str = "") -> OutboundProxy:
    """Read a proxy's URL; ValueError says what is wrong and repeats nothing of it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with http://, https://, socks5:// or socks5h://")
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a URL such as http://host:3128")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("may hold scheme, user, password, host and port, nothing more")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if problem := _bad_credentials(parts.scheme, user, password):
        raise ValueError(problem)
    return OutboundProxy(
        parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], user, password, ca_file
    )


def _bad_credentials(scheme: str, user: str, password: str) -> str:
    if password and not user:
        return "has a password and no user"
    if scheme in ("http", "https"):
        return "the user of an HTTP proxy must not hold a colon" if ":" in user else ""
    if max(len(user.encode()), len(password.encode())) > MAX_SOCKS_CREDENTIAL_BYTES:
        return "SOCKS has room for 255 bytes of user and password each"
    return ""


def _connect(proxy: OutboundProxy, host: str, port: int) -> Talk:
    """RFC 9110, 9.3.6. Servers without TLS are reached so too, so that their bytes stay ours."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.user:
        pair = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {pair}")
    head = yield "\r\n".join([*lines, "", ""]).encode("ascii"), HEAD
    status = _STATUS.match(head)
    if status is None:
        raise NoTunnel("its answer is not HTTP")
    if not status[1].startswith(b"2"):
        raise NoTunnel(f"it answered {int(status[1])}")


def _socks(proxy: OutboundProxy, host: str, port: int) -> Talk:
    """RFC 1928 and, for user and password, RFC 1929."""
    methods = bytes((_NO_CREDENTIALS, _USER_AND_PASSWORD) if proxy.user else (_NO_CREDENTIALS,))
    version, method = yield bytes((5, len(methods))) + methods, 2
    if version != 5:
        raise NoTunnel("its answer is not SOCKS 5")
    if method == _NOTHING_SUITS:
        raise NoTunnel("it wants another way to log in")
    if method not in methods:
        raise NoTunnel("it chose what was not offered")
    if method == _USER_AND_PASSWORD:
        user, password = proxy.user.encode(), proxy.password.encode()
        answer = yield bytes((1, len(user))) + user + bytes((len(password),)) + password, 2
        if answer[1] != 0:
            raise NoTunnel("it refused user and password")
    version, reply, _, kind = yield b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"), 4
    if version != 5:
        raise NoTunnel("its answer is not SOCKS 5")
    if reply != 0:
        raise ServerRefused(_REPLIES.get(reply, f"reply {reply}"))
    yield from _bound_address(kind)


def _bound_address(kind: int) -> Talk:
    """Read over the address from which the proxy connects."""
    length = {_IPV4: 4, _IPV6: 16}.get(kind)
    if kind == _NAME:
        length = (yield b"", 1)[0]
    if length is None:
        raise NoTunnel("its answer is not SOCKS 5")
    yield b"", length + 2  # the port too


def _address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise NoTunnel("the server's name is too long") from None
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed
