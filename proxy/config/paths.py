"""Relative paths, made to start where they should.

Files that are read lie beside the configuration file. Files that are written don't:
systemd gives a service a state directory and may forbid the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct, inspect, structs

from proxy.config.reflect import all_structs, unwrapped
from proxy.config.schema import Config

_NESTED = inspect.StructType | inspect.VarTupleType | inspect.DictType | inspect.UnionType


def with_paths(config: Config, wanted: inspect.Type, origin: str, environ: Mapping[str, str]) -> Config:
    """The configuration with every path made complete."""
    # systemd separates several state directories with colons
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    folders = {"read": PurePosixPath(origin).parent, "write": PurePosixPath(state)}
    kinds = {section: _kinds(found) for section, found in all_structs(wanted).items()}
    resolved: Config = _Resolver(folders, kinds).resolve(config)
    return resolved


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Walks values; `kinds` names the fields of each section that are paths, or may hold some."""

    folders: Mapping[str, PurePosixPath]
    kinds: Mapping[type, Sequence[tuple[str, str]]]

    def resolve(self, value: Any) -> Any:
        if isinstance(value, Struct):
            changes = {
                name: self._field(getattr(value, name), kind) for name, kind in self.kinds[type(value)]
            }
            return structs.replace(value, **changes)
        if isinstance(value, tuple):
            return tuple(self.resolve(item) for item in value)
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        return value

    def _field(self, value: Any, kind: str) -> Any:
        if not kind:
            return self.resolve(value)
        return str(self.folders[kind] / value) if value else value


def _kinds(wanted: inspect.StructType) -> list[tuple[str, str]]:
    flagged = [(each.name, *unwrapped(each.type, {})) for each in wanted.fields]
    return [
        (name, flags.get("path", ""))
        for name, type_, flags in flagged
        if "path" in flags or isinstance(type_, _NESTED)
    ]
