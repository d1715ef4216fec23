"""The words the schema is written in: units, secrets and the sentence for each field.

Every field's sentence stands beside its type and default, so that the JSON schema
and docs/config.md, which are generated from it, cannot drift from the code.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, inspect

Duration = Annotated[
    float,
    Meta(
        gt=0,
        extra={"unit": "duration"},
    ),
]
"""Seconds; written `250ms`, `30s`, `10m`, `1h` or as a plain number."""

DurationOrZero = Annotated[
    float,
    Meta(
        ge=0,
        extra={"unit": "duration"},
    ),
]
"""A duration that may be 0, where that means at once, or never."""

Size = Annotated[
    int,
    Meta(
        ge=0,
        extra={"unit": "size"},
    ),
]
"""Bytes; written `64KiB`, `100MiB`, `1MB` or as a plain number."""

Timestamp = Annotated[
    float,
    Meta(
        extra={"unit": "timestamp"},
    ),
]
"""Seconds since 1970; written as RFC 3339 text, a date, or a plain number."""

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]


def says(sentence: str) -> Meta:
    """The sentence that explains a field."""
    return Meta(description=sentence)


def confidential(sentence: str) -> Meta:
    """As `says`, for a field whose value no message may show."""
    return _flagged(sentence, secret=True)


def at_start(sentence: str) -> Meta:
    """As `says`, for a field that a reload cannot change."""
    return _flagged(sentence, restart=True)


def reads(sentence: str, *, restart: bool = False) -> Meta:
    """As `says`, for a file that is read: relative to the configuration file's folder."""
    return _flagged(sentence, path="read", restart=restart)


def writes(sentence: str, *, restart: bool = True) -> Meta:
    """As `says`, for a file that is written: relative to the state directory."""
    return _flagged(sentence, path="write", restart=restart)


def choice(kind: str, sentence: str) -> Meta:
    """As `says`, for a text that names something of a lower floor (see choices.py)."""
    return _flagged(sentence, choice=kind)


def no_op(sentence: str) -> Meta:
    """As `says`, for a key that other gateways know and that has nothing to do here."""
    return _flagged(sentence, no_op=True)


def internal() -> Meta:
    """For a field that the loader fills in and no file may hold."""
    return _flagged("", internal=True)


def _flagged(sentence: str, **flags: Any) -> Meta:
    return Meta(description=sentence, extra=flags)


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration; its text form hides what is confidential."""

    def __repr__(self) -> str:
        fields = (field.name for field in inspect.type_info(type(self)).fields)  # type: ignore[attr-defined]
        hidden = confidential_names(type(self))
        values = {name: getattr(self, name) for name in fields}
        shown = (
            f"{name}={'…' if value and name in hidden else repr(value)}" for name, value in values.items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def confidential_names(section: type[Section]) -> set[str]:
    """The fields of a section that hold key material."""
    fields = inspect.type_info(section).fields  # type: ignore[attr-defined]
    flagged = ((field.name, field.type) for field in fields)
    return {
        name
        for name, type_ in flagged
        if isinstance(type_, inspect.Metadata) and "secret" in (type_.extra or {})
    }
