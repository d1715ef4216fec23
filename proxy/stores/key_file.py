"""A file of keys that nobody but its owner may read."""

from collections.abc import Callable, Mapping
from os import fstat
from pathlib import Path
from stat import S_IMODE

import yaml

from proxy.config import ConfigError, Problem, parse_keys
from proxy.config.schema_auth import Key
from proxy.stores.key_table import KeyTable, clashes

# 100,000 keys with everything that may be said of them are 50 MB.
MAX_FILE_BYTES = 64 * 1024 * 1024
# Any access for the group or for others.
OTHERS = 0o077

Note = Callable[[str], None]


def read_key_file(path: Path, environ: Mapping[str, str], *, name: str, note: Note) -> KeyTable:
    """The keys of a file, or ConfigError with everything that is wrong with it.

    Blocks: a reload reads in a thread. `note` gets what deserves a warning; it
    names the entry and never the key.
    """
    return KeyTable.of(name, read_keys(path, environ, note=note))


def read_keys(path: Path, environ: Mapping[str, str], *, note: Note) -> tuple[Key, ...]:
    """As `read_key_file`, for those who want the entries themselves."""
    text = _text(path, environ)
    folder = path.parent
    keys, notes = parse_keys(
        text, environ, read_file=lambda name: (folder / name).read_text("utf-8"), origin=str(path)
    )
    if problems := _clashing(keys, text):
        raise ConfigError(str(path), problems)
    for sentence in notes:
        note(f"{path}: {sentence}")
    return keys


def _text(path: Path, environ: Mapping[str, str]) -> str:
    """Checks the open file, so that nobody can exchange it in between."""
    try:
        with path.open("rb") as file:
            status = fstat(file.fileno())
            if S_IMODE(status.st_mode) & OTHERS and not _is_credential(path, environ):
                raise _refused(
                    path, f"mode {S_IMODE(status.st_mode):04o}", f"others may read it: chmod 600 {path}"
                )
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refused(path, "", f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise _refused(path, "", f"is larger than {MAX_FILE_BYTES} bytes; keep so many keys in a database")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [Problem(line, "", "", "is not UTF-8 text")]) from None


def _is_credential(path: Path, environ: Mapping[str, str]) -> bool:
    """systemd guards its credentials with a list of users, which shows as a bit for the group."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.resolve().is_relative_to(Path(str(folder)).resolve())


def _refused(path: Path, found: str, sentence: str) -> ConfigError:
    return ConfigError(str(path), [Problem(1, "", found, sentence)])


def _clashing(keys: tuple[Key, ...], text: str) -> list[Problem]:
    found = list(clashes(keys))
    lines = _lines(text) if found else {}
    return [
        Problem(lines.get(index, 1), f"keys[{index}]", "", f"{sentence} (keys[{earlier}])")
        for index, earlier, sentence in found
    ]


def _lines(text: str) -> dict[int, int]:
    """Where the entries begin; nothing for JSON that this parser would not take."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    if isinstance(root, yaml.MappingNode):
        root = next((value for name, value in root.value if name.value == "keys"), None)
    items = root.value if isinstance(root, yaml.SequenceNode) else ()
    return {index: item.start_mark.line + 1 for index, item in enumerate(items)}
