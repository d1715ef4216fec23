"""A refresh token on disk: read with its rights checked, written back whole or not at all.

The file holds the token alone, or JSON with `refresh_token` and, kept from the
last refresh, `access_token` and `expires_at` (seconds since 1970), so that a
restart need not spend a refresh. JSON that others made (Qwen Code's
oauth_creds.json, gcloud's) keeps its other members.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import orjson

# Tokens are under 4 KB; a file of another kind should not be read into memory.
MAX_FILE_BYTES = 64 * 1024


class BadTokenFile(Exception):
    """The file cannot be used; the text says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """What a file holds."""

    refresh_token: str = field(repr=False)
    access_token: str = field(default="", repr=False)
    expires_at: float = 0.0
    members: dict[str, object] | None = field(default=None, repr=False)  # where it is JSON


def read_token(path: Path) -> StoredToken:
    """The file's token; raises BadTokenFile, also where others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & 0o077:
                raise BadTokenFile("others may read it: it needs mode 0600")
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadTokenFile(error.strerror or type(error).__name__) from error
    if len(text) > MAX_FILE_BYTES:
        raise BadTokenFile("it is too large for a token")
    return _parse(text.strip())


def write_token(path: Path, stored: StoredToken) -> None:
    """Replace the file in one step, readable by its owner only; raises OSError."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_text(stored))
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)


def _parse(text: bytes) -> StoredToken:
    if not text.startswith(b"{"):
        return StoredToken(_token(text.decode("ascii", "replace")))
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadTokenFile("it begins as JSON and is none") from error
    access, expires = members.get("access_token"), members.get("expires_at")
    return StoredToken(
        _token(members.get("refresh_token")),
        access if isinstance(access, str) else "",
        float(expires) if isinstance(expires, int | float) else 0.0,
        members,
    )


def _token(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise BadTokenFile("it holds no token")
    return value


def _text(stored: StoredToken) -> bytes:
    members = {
        **(stored.members or {}),
        "refresh_token": stored.refresh_token,
        "access_token": stored.access_token,
        "expires_at": stored.expires_at,
    }
    return orjson.dumps(members, option=orjson.OPT_INDENT_2) + b"\n"
