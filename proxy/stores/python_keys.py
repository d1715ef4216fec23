"""Keys that a function of the user's own knows: `module:function`.

It gets the key as text and returns None for a key it doesn't know, True or
False, or a mapping with the fields of a key file's entry. It may be a coroutine
function; a plain one runs in a thread, so that it cannot hold up the loop.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from proxy.access import Credential, Quota
from proxy.stores.answer import BadAnswer, credential_from
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.worker import Worker, WorkerBusy

# Calls of a plain function at the same time; one that never returns takes a thread for good.
THREADS = 8

Check = Callable[[str], Any]


class BadCallable(Exception):
    """There is no such function; the text says what is missing."""


class PythonKeys:
    """Asks a function; the time it may take is the cache's business."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self._check = check
        self._is_async = inspect.iscoroutinefunction(check)
        self._worker = Worker(f"keys-{name}", threads=THREADS)

    async def find(self, digest: bytes, key: str) -> Credential | None:
        try:
            found = await (self._check(key) if self._is_async else self._worker.run(lambda: self._check(key)))
            if isinstance(found, bool):
                found = {"allow": found}
            if found is not None and not isinstance(found, Mapping):
                raise BadAnswer(f"the function returned {type(found).__name__}, not a mapping")
            return None if found is None else credential_from(found, digest, source=self.name)
        except WorkerBusy as busy:
            raise StoreUnavailable(self.name, "all threads are taken") from busy
        except BadAnswer as error:
            raise LookupFailed(self.name, str(error)) from None
        except TimeoutError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            # The function's own: nobody is let in or called unknown for it, and a sys.exit() in it ends
            # nothing of ours. Its text may hold the key.
            raise LookupFailed(self.name, f"the function raised {type(error).__name__}") from None

    async def debit(self, credential: Credential, amount: int, now: float, *, entry: str) -> Quota | None:
        """The function keeps its own books; it learns of usage from the usage reports."""
        return None

    async def close(self) -> None:
        await self._worker.close()


def load_callable(name: str, folder: Path) -> Check:
    """The function that `module:function` names: from a file in the folder, else from an installed module."""
    module_name, _, path = name.partition(":")
    module = _module(module_name, folder)
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise BadCallable(f"{name}: the module has no such function")
    check: Check = found
    return check


def _module(name: str, folder: Path) -> ModuleType:
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    try:
        return _from_file(name, file) if file.is_file() else import_module(name)
    except Exception as error:
        # Whatever a module raises while it is imported means that it cannot be used.
        raise BadCallable(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _from_file(name: str, file: Path) -> ModuleType:
    """A module that is read anew at every reload, under a name that hides no other module."""
    own_name = f"llmproxy_keys.{name}"
    spec = spec_from_file_location(own_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = module_from_spec(spec)
    sys.modules[own_name] = module
    spec.loader.exec_module(module)
    return module
