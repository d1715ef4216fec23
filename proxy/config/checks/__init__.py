"""What must hold between values: names that exist, things that go together.

Runs on the converted tree, also when leaves of it were refused, so that everything
is said at once.
"""

from proxy.config.adapt import Note
from proxy.config.checks import auth, pools, server, usage
from proxy.config.checks.place import Place
from proxy.config.schema import Config

__all__ = ["Place", "check"]


def check(config: Config, place: Place, note: Note) -> None:
    """Report every problem, and note what is odd but works."""
    server.check(config, place, note)
    auth.check(config, place, note)
    pools.check(config, place, note)
    usage.check(config, place, note)
