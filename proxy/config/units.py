"""Durations and sizes as people write them: `250ms`, `10m`, `1h30m`; `64KiB`, `1MB`.

A plain number is seconds, or bytes. Values leave here as float seconds and int
bytes; nothing else in the program knows the spelling.
"""

import re

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kb": 1000,
    "kib": 1024,
    "m": 1024**2,
    "mb": 1000**2,
    "mib": 1024**2,
    "g": 1024**3,
    "gb": 1000**3,
    "gib": 1024**3,
}

_NUMBER = r"\d+(?:\.\d+)?"
_PLAIN = re.compile(_NUMBER, re.ASCII)
_DURATION_PART = re.compile(rf"({_NUMBER})(us|µs|ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(rf"(?:{_NUMBER}(?:us|µs|ms|s|m|h|d))+", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([kmg]i?b?|b)?", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds, or ValueError; parts add up as in Go (`1h30m`)."""
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError("not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def parse_size(text: str) -> int:
    """Bytes, or ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size")
    number, unit = match.groups(default="")
    size = float(number) * _BYTES[unit.lower()]
    if not size.is_integer():
        raise ValueError("not a whole number of bytes")
    return int(size)


def show_duration(seconds: float) -> str:
    """The shortest spelling that `parse_duration` reads back as the same number."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:g}s"


def show_size(size: int) -> str:
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)
