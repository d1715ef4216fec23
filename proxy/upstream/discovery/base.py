"""What a source of backends is, and what it may say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.config.schema_pools import Backend
from proxy.config.values import bad_backend_url, bad_header
from proxy.upstream.ask import NoAnswer

# One pool of a thousand servers is more than one gateway can feed.
MAX_FOUND = 1024

MAX_WEIGHT = 1000


class SourceFailed(NoAnswer):
    """What a source said makes no sense."""


@dataclass(frozen=True, slots=True)
class Found:
    """One backend as a source describes it; raises SourceFailed for what the file could not say either."""

    url: str
    name: str = ""
    weight: int = 1
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_in_flight: int | None = None
    server_name: str = ""  # what its certificate is made out to, where the URL holds an address
    section: Backend | None = field(default=None, repr=False)  # all that a file says of it

    def __post_init__(self) -> None:
        problems = [bad_backend_url(self.url)]
        problems += [bad_header(name, value) for name, value in self.headers.items()]
        if problem := next(filter(None, problems), ""):
            raise SourceFailed(f"a backend's URL or header {problem}")


class Source(Protocol):
    """Somewhere to look for backends."""

    async def find(self) -> Sequence[Found]:
        """All that are there now; raises NoAnswer."""

    async def close(self) -> None: ...


def read_entry(entry: object) -> Found:
    """A backend written as its URL, or as an object; raises SourceFailed."""
    if isinstance(entry, str):
        return Found(entry if "://" in entry else f"http://{entry}")
    if not isinstance(entry, dict):
        raise SourceFailed("a backend is neither a URL nor an object")
    url, name, api_key = entry.get("url"), entry.get("name", ""), entry.get("api_key", "")
    weight, bound, headers = entry.get("weight", 1), entry.get("max_in_flight"), entry.get("headers", {})
    if not isinstance(url, str) or not isinstance(name, str) or not isinstance(api_key, str):
        raise SourceFailed("a backend's url, name or api_key is not a text")
    if type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:
        raise SourceFailed("a backend's weight is not a number from 0 to 1000")
    if bound is not None and (type(bound) is not int or bound < 1):
        raise SourceFailed("a backend's max_in_flight is not a positive number")
    if not isinstance(headers, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in headers.items()
    ):
        raise SourceFailed("a backend's headers are not names with values")
    if not _is_line(api_key):
        raise SourceFailed("a backend's api_key is not one line")
    return Found(url, name, weight, api_key, headers, bound)


def read_entries(entries: object) -> tuple[Found, ...]:
    """A list of backends; raises SourceFailed."""
    if not isinstance(entries, list):
        raise SourceFailed("not a list of backends")
    if len(entries) > MAX_FOUND:
        raise SourceFailed("more backends than a pool may have")
    return tuple(read_entry(entry) for entry in entries)


def http_url(host: str, port: int, scheme: str = "http") -> str:
    """The URL of an address; IPv6 goes into brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _is_line(text: str) -> bool:
    """Whether it can stand in a header: printable Latin-1, or nothing."""
    return text.isprintable() and all(character < "\u0100" for character in text)
