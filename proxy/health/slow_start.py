"""An endpoint that comes back gets its share back little by little.

Its caches are cold and its first requests slow; a full share at once would
queue there what the others serve faster.
"""

# Even at the very beginning a trickle must reach it, or there is nothing to grow on.
FIRST_SHARE = 0.1


def share(came_back: float | None, now: float, duration: float) -> float:
    """What part of its weight counts: 1.0 always up, else from a tenth to one over `duration` seconds."""
    if came_back is None or duration <= 0.0:
        return 1.0
    progress = (now - came_back) / duration
    if progress >= 1.0:
        return 1.0
    return max(FIRST_SHARE, progress)
