"""The schema for people: docs/config.md."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import inspect

from proxy.config.choices import CHOICES
from proxy.config.json_schema import summary
from proxy.config.reflect import Flags, description, unwrapped, written_fields
from proxy.config.schema import Config
from proxy.config.units import show_duration, show_size

INTRODUCTION = """\
# Configuration

*Made by `make docs` from the sentences that stand beside the fields in `proxy/config/`.*

A configuration file is YAML, or JSON, which is YAML. `llmproxy check FILE` prints everything that is
wrong with one, with lines; starting and reloading do the same. `llmproxy schema` prints a JSON schema
for editors, which is also in `conf/llmproxy.schema.json`. This first line makes most editors use it:

    # yaml-language-server: $schema=llmproxy.schema.json

- `${NAME}`, `${NAME:-default}` and `${file:/path}` put environment variables and files into any value;
  `$$` is a dollar sign. What is put in stays text, whatever is in it.
- Durations are written `250ms`, `30s`, `10m`, `1h30m`, or in seconds; sizes `64KiB`, `100MiB`, `1MB`, or
  in bytes; times `2027-01-31T12:00:00Z`. `none` stands for no duration where that is possible.
- A section is on when it is written; `enabled: false` switches it off where it stands.
- An empty value counts as left out. Sections at the top whose names begin with `x-` are ignored; they
  can hold anchors for the rest of the file.
- Relative paths of files that are read start at the configuration file's folder; of files that are
  written, at systemd's `$STATE_DIRECTORY`, else at the working directory.
- The options of an entry with a `type` may also stand below the type's name:
  `{type: webhook, webhook: {url: …}}`.
- Every pool has what `routing` and `health_check` say, except where it says something itself, key by
  key; every backend has its pool's `timeouts` in the same way.
- ↻ marks what needs a restart to change. The rest follows a reload (SIGHUP).
"""

OTHER_GATEWAYS = """\
## Files of the Go LLMProxy

They load as they are, with these exceptions. What is switched off in the file is never refused.

| there | here |
|---|---|
| `listen` at the top, `usage_hook` | read as `server.listen` and as a webhook reporter |
| `log.file`, `logging.access.file.rotate` … | refused: journald or logrotate keep and rotate files |
| `logging.request`, `include_body` | refused: bodies are never stored; use `usage.reporters` |
| `hooks`, `script` anywhere, `type: lua` | refused: use `type: python` or `type: webhook` for keys |
| `routing.fallback` with URLs | refused: fallbacks name pools |
| `write_timeout`, `max_idle_conns`, `webhook.retry` … | accepted; `llmproxy check` says why nothing happens |
| `timeout` of a backend or in `routing` | the longest silence, not the length of an answer |
| `storage.*.enabled` left out | on here, off there |
| numbers for a key's `status` | 0 active, 1 disabled, 2 quota_exceeded, 3 expired |
"""


def reference() -> str:
    """The whole schema as Markdown."""
    root = inspect.type_info(Config)
    assert isinstance(root, inspect.StructType)
    homes: dict[type, tuple[int, str]] = {}
    _find_homes(root, "", homes)
    writer = _Writer({section: path for section, (_, path) in homes.items()})
    writer.section("", root)
    return "\n".join([INTRODUCTION, *writer.parts, OTHER_GATEWAYS])


def _find_homes(wanted: inspect.StructType, path: str, homes: dict[type, tuple[int, str]]) -> None:
    """Sections that stand in several places are described where their path is shortest."""
    depth = path.count(".") + path.count("[")
    if wanted.cls in homes and homes[wanted.cls][0] <= depth:
        return
    homes[wanted.cls] = (depth, path)
    for each in written_fields(wanted):
        for found, suffix in _sections_in(each.type):
            _find_homes(found, f"{path}.{each.encode_name}{suffix}".lstrip("."), homes)


@dataclass(slots=True)
class _Writer:
    """Writes every section once, at its home; other places link to it."""

    homes: dict[type, str]
    parts: list[str] = field(default_factory=list)

    def section(self, path: str, wanted: inspect.StructType) -> None:
        fields = written_fields(wanted)
        level = "###" if "." in path.replace(".NAME", "") else "##"
        lines = [f"{level} {self._heading(wanted)}", "", summary(wanted), ""]
        if fields:
            lines += ["| key | value | default | |", "|---|---|---|---|", *map(self._row, fields), ""]
        self.parts.append("\n".join(lines))
        for each in fields:
            for found, suffix in _sections_in(each.type):
                below = f"{path}.{each.encode_name}{suffix}".lstrip(".")
                if self.homes[found.cls] == below:
                    self.section(below, found)

    def _heading(self, wanted: inspect.StructType) -> str:
        path = self.homes[wanted.cls]
        return f"{path} (`{wanted.tag_field}: {wanted.tag}`)" if wanted.tag_field else path or "Sections"

    def _row(self, each: inspect.Field) -> str:
        wanted, flags = unwrapped(each.type, {})
        mark = " ↻" if flags.get("restart") else ""
        sentence = ("*Nothing to do:* " if flags.get("no_op") else "") + description(each)
        value, default = self._value(wanted, flags), _default(each, flags)
        return f"| `{each.encode_name}`{mark} | {value} | {default} | {sentence} |"

    def _value(self, wanted: inspect.Type, flags: Flags) -> str:
        wanted, flags = unwrapped(wanted, flags)
        if "unit" in flags:
            return str(flags["unit"]).replace("timestamp", "time")
        if "choice" in flags:
            return ", ".join(f"`{name}`" for name in CHOICES[flags["choice"]])
        match wanted:
            case inspect.StructType():
                return self._link(wanted)
            case inspect.DictType():
                return f"names with {self._value(wanted.value_type, {})}"
            case inspect.VarTupleType():
                return f"list of {self._value(wanted.item_type, {})}"
            case inspect.UnionType():
                return ", ".join(self._value(option, {}) for option in wanted.types)
        return _scalar(wanted)

    def _link(self, wanted: inspect.StructType) -> str:
        heading = self._heading(wanted)
        text = f"`{wanted.tag}`" if wanted.tag else heading
        return f"[{text}](#{slug(heading)})"


def slug(heading: str) -> str:
    """The anchor that GitHub and most renderers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _sections_in(wanted: inspect.Type) -> Iterator[tuple[inspect.StructType, str]]:
    """Every Struct below a field, and how its path goes on."""
    wanted, _ = unwrapped(wanted, {})
    match wanted:
        case inspect.StructType():
            yield wanted, ""
        case inspect.UnionType():
            yield from ((option, "") for option in wanted.types if isinstance(option, inspect.StructType))
        case inspect.VarTupleType():
            yield from ((found, f"[]{rest}") for found, rest in _sections_in(wanted.item_type))
        case inspect.DictType():
            yield from ((found, f".NAME{rest}") for found, rest in _sections_in(wanted.value_type))


def _scalar(wanted: inspect.Type) -> str:
    match wanted:
        case inspect.BoolType():
            return "true, false"
        case inspect.IntType() | inspect.FloatType():
            return _number(wanted)
        case inspect.LiteralType():
            return ", ".join(f"`{value}`" for value in wanted.values)
    return "text"


def _number(wanted: inspect.IntType | inspect.FloatType) -> str:
    low = wanted.ge if wanted.ge is not None else wanted.gt
    if wanted.le is not None:
        return f"{low}…{wanted.le}"
    kind = "whole number" if isinstance(wanted, inspect.IntType) else "number"
    return kind if low is None else f"{kind} {'≥' if wanted.ge is not None else '>'} {low}"


def _default(each: inspect.Field, flags: Flags) -> str:
    if each.required:
        return "*required*"
    value = each.default
    if flags.get("unit") == "duration" and isinstance(value, float | int):
        return f"`{show_duration(value)}`"
    if flags.get("unit") == "size" and isinstance(value, int):
        return f"`{show_size(value)}`"
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case str() | int() | float() if value != "":
            return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
        case tuple() if value:
            return ", ".join(f"`{item}`" for item in value)
    return ""
