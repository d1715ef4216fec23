"""Single values that a type cannot describe: addresses, URLs, networks, names.

Each function returns the sentence that says what is wrong, or an empty text.
"""

import re
from ipaddress import ip_network
from urllib.parse import urlsplit

_UNIX = "unix:"
_LISTEN = re.compile(r"(?P<host>[^\s:\[\]/]*|\[[0-9A-Fa-f:.%a-z]+\]):(?P<port>[0-9]{1,5})", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]+")
_DSN = re.compile(r"(postgres(ql)?|mysql|mariadb|sqlite)(\+\w+)?://", re.ASCII)

# Set by us for every request, or by HTTP itself.
_OURS = {
    "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip


def bad_listen(text: str) -> str:
    if text.startswith(_UNIX):
        return "" if text.removeprefix(_UNIX) else "unix: needs a path, unix:/run/llmproxy/http.sock"
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        return "must be host:port, :port, [::1]:port or unix:/path"
    return ""


def bad_url(text: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
    """URLs hold no credentials: they would end up in logs."""
    wish = f"must be a URL such as {schemes[0]}://host:8000"
    if not text.isascii() or not text.isprintable() or " " in text:
        return wish
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return wish
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        return wish
    if parts.username is not None:
        return "must not hold a user or password; write api_key or headers"
    return "must not hold a fragment (#…)" if parts.fragment else ""


def bad_backend_url(text: str) -> str:
    problem = bad_url(text)
    return problem or ("must not hold a query (?…)" if "?" in text else "")


def bad_network(text: str) -> str:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return "must be an address or a network, 10.0.0.7 or 10.0.0.0/8"
    return ""


def bad_header(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name):
        return "is not a header name"
    if name.lower() in _OURS:
        return "is set by the gateway itself; take it out"
    return "" if _FIELD_VALUE.fullmatch(value) else "the value holds characters that no header may hold"


def bad_header_name(name: str) -> str:
    return "" if _TOKEN.fullmatch(name) else "must be a header name"


def bad_identifier(text: str) -> str:
    return "" if _IDENTIFIER.fullmatch(text) else "must be a plain SQL name: letters, digits and _"


def bad_label(text: str) -> str:
    return "" if _LABEL.fullmatch(text) else "must be a label name: letters, digits and _"


def bad_callable(text: str) -> str:
    return "" if _CALLABLE.fullmatch(text) else "must be module:function"


def bad_sha256(text: str) -> str:
    return "" if _SHA256.fullmatch(text) else "must be 64 hex digits; `llmproxy keys hash` prints them"


def bad_key(text: str) -> str:
    return "" if _KEY.fullmatch(text) else "a key may hold only visible ASCII characters and no space"


def bad_dsn(text: str) -> str:
    if _DSN.match(text):
        return ""
    return "must be a URL, postgresql://user:password@host/database; or write host, user, password, database"
