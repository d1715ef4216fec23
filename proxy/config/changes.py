"""What a reload cannot change."""

from msgspec import Struct, inspect

from proxy.config.reflect import unwrapped
from proxy.config.schema import Config


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """The paths of everything that differs and waits for the next start."""
    return tuple(_differences(old, new, ""))


def _differences(old: Struct, new: Struct, path: str) -> list[str]:
    found = []
    wanted = inspect.type_info(type(old))
    assert isinstance(wanted, inspect.StructType)
    for field in wanted.fields:
        before, after = getattr(old, field.name), getattr(new, field.name)
        _, flags = unwrapped(field.type, {})
        if before == after:
            continue
        if flags.get("restart"):
            found.append(path + field.encode_name)
        elif isinstance(before, Struct) and isinstance(after, Struct):
            found += _differences(before, after, f"{path}{field.encode_name}.")
    return found
