"""What the schema has room for and this version does not do yet.

Such a key is accepted and noted, at `llmproxy check` and at every start, so that
nobody relies on it. Whoever builds one of these takes its line out.
"""

from collections.abc import Callable, Iterator

from proxy.config.adapt import Note
from proxy.config.schema import Config
from proxy.config.schema_pools import Backend, Pool

LATER: tuple[tuple[str, Callable[[Config], bool]], ...] = (
    ("backends[].proxy", lambda config: any(backend.proxy for backend in _backends(config))),
)


def note_what_comes_later(config: Config, note: Note) -> None:
    """Say what of this configuration has no effect yet."""
    for path, is_wanted in LATER:
        if is_wanted(config):
            note(f"{path}: not in this version; it has no effect")


def _pools(config: Config) -> Iterator[Pool]:
    yield from config.pools.values()


def _backends(config: Config) -> Iterator[Backend]:
    for pool in _pools(config):
        yield from pool.backends
