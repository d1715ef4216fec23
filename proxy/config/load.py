"""From text to `Config`: read, adapt, inherit, convert, name, check.

Every step reports what it finds and goes on, so that a file is mended in one round.
"""

from collections.abc import Mapping

from msgspec import inspect, structs

from proxy.config.adapt import Adapter, adapt_key, inherit
from proxy.config.checks import Place, check
from proxy.config.checks.auth import check_keys
from proxy.config.convert import Converter
from proxy.config.document import Node, Reader, Report, kind_of
from proxy.config.expand import Expander, ReadFile
from proxy.config.naming import with_names
from proxy.config.paths import with_paths
from proxy.config.problems import ConfigError, Problem
from proxy.config.schema import Config
from proxy.config.schema_auth import Key, KeyFileContent

# `x-…` at the top holds anchors for the rest of the file, as in compose files.
_EXTENSION = "x-"


def parse(text: str, environ: Mapping[str, str], *, read_file: ReadFile, origin: str = "config") -> Config:
    """The configuration in `text`, or ConfigError with everything that is wrong with it.

    `origin` is what messages call it; for a file its path, because relative paths in it start there.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    root = _sections(Reader(Expander(environ, read_file), problems.append).read(text), problems.append)
    Adapter(root, problems.append, notes.append).adapt()
    inherit(root, problems.append)
    wanted = inspect.type_info(Config)
    config = with_names(Converter(problems.append, notes).convert(root, wanted))
    check(config, Place(root, problems.append), notes.append)
    if problems:
        raise ConfigError(origin, problems)
    config = with_paths(config, wanted, origin, environ)
    return structs.replace(config, origin=origin, notes=tuple(dict.fromkeys(notes)))


def parse_keys(
    text: str, environ: Mapping[str, str], *, read_file: ReadFile, origin: str = "keys"
) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    """The keys of a key file (`keys: […]`, or the list alone) and notes on them, or ConfigError."""
    problems: list[Problem] = []
    notes: list[str] = []
    root = Reader(Expander(environ, read_file), problems.append).read(text)
    if not isinstance(root.value, dict):
        root = Node({"keys": root}, root.line, "")
    for key in root.mapping["keys"].items if "keys" in root.mapping else ():
        adapt_key(key)
    file: KeyFileContent = Converter(problems.append, notes).convert(root, inspect.type_info(KeyFileContent))
    check_keys(file.keys, Place(root, problems.append) / "keys", notes.append)
    if problems:
        raise ConfigError(origin, problems)
    return file.keys, tuple(notes)


def _sections(root: Node, report: Report) -> Node:
    if not isinstance(root.value, dict):
        if root.value is not None:
            report(Problem(root.line, "", kind_of(root), "the file must be a mapping of sections"))
        return Node({}, root.line, "")
    return Node({key: node for key, node in root.mapping.items() if not key.startswith(_EXTENSION)}, 1, "")
