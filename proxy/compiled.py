"""Whether what was compiled of this package is what is written in it (see setup.py)."""

from pathlib import Path

# Files copied together may get times that lie so far apart.
COPYING_SECONDS = 10.0


def stale(package: Path) -> Path | None:
    """A module that was changed after it was compiled, so that Python would run what it was before."""
    for compiled in package.rglob("*.so"):
        source = compiled.with_name(compiled.name.partition(".")[0] + ".py")
        if source.exists() and source.stat().st_mtime > compiled.stat().st_mtime + COPYING_SECONDS:
            return source
    return None
