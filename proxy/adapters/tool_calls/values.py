"""How the value of an XML element ends.

Values hold whole files, and files hold anything. A closing tag is real only if
what must follow it does: the next argument, the end of the call and then of its
wrap, or the end of the text.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from proxy.adapters.scanning_pattern import (
    SPACE,
    Ahead,
    Atom,
    Either,
    End,
    Lit,
    Pattern,
    Seq,
    candidates,
    maybe,
)
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.openings import tags


@dataclass(frozen=True, slots=True)
class Values:
    """The patterns inside a value."""

    taken: re.Pattern[str]  # the part of the end that belongs to the value
    tag: re.Pattern[str]  # its closing tag
    stop: Pattern  # the end, markup of another call inside the value, or the next argument's head
    nested: Pattern
    last: Pattern  # ends of a call with nothing behind them
    unwrapped: re.Pattern[str]  # the end of another call's wrap
    marks: re.Pattern[str]  # what either of the last two, or a call's end, begins with


@dataclass(frozen=True, slots=True)
class Between:
    """The patterns between values."""

    argument: Pattern
    call_end: Pattern
    wrap_end: Pattern


@lru_cache(maxsize=64)
def between(format: Format) -> Between:
    """The patterns between a format's arguments; compiled once."""
    return Between(
        argument=Pattern(tags(format, format.argument)),
        call_end=Pattern(tags(format, format.call_end)),
        wrap_end=Pattern(tags(format, format.wrap_end)),
    )


# One entry per format, and in the formats whose closing tag repeats the key, per key.
@lru_cache(maxsize=256)
def values(format: Format, *, wrapped: bool, key: str = "") -> Values:
    """The patterns inside a format's values, in a call that stands in a wrap or does not."""
    wrapped = wrapped and bool(format.wrap)
    wrap, wrap_end = tags(format, format.wrap), tags(format, format.wrap_end)
    call, call_end = tags(format, format.call, capture=False), tags(format, format.call_end)
    argument = tags(format, format.argument, capture=False)
    argument_end = tags(format, format.argument_end, key=key)
    trim = maybe(Lit("\n")) if format.trim else Seq()
    next_call = Seq(maybe(wrap, SPACE), call)

    over: Atom = Seq(SPACE, Either(wrap_end, next_call, End())) if wrapped else Seq()
    follows: list[Atom] = [argument, Seq(call_end, over), next_call, End()]
    # Models forget the closing tag of the value, and that of the call.
    forgotten: list[Atom] = [Seq(call_end, SPACE, Either(wrap_end, next_call, End()))]
    if wrapped:
        follows.append(wrap_end)
        forgotten.append(Seq(wrap_end, SPACE, Either(next_call, End())))
    close = Either(
        Seq(trim, argument_end, SPACE, Ahead(Either(*follows))), Seq(trim, Ahead(Either(*forgotten)))
    )
    # A head at the beginning of a line, where the closing tag was forgotten: the reader decides.
    headless = Seq(Lit("\n"), Ahead(argument))
    markup = Seq(maybe(wrap, SPACE), call, SPACE, Ahead(Either(argument, call_end)))
    last = Seq(trim, maybe(argument_end, SPACE), call_end, SPACE, maybe(wrap_end), SPACE, End())
    return Values(
        taken=re.compile(Seq(trim, maybe(argument_end)).whole(True)),
        tag=re.compile(Seq(trim, argument_end).whole(True)),
        stop=Pattern(Either(close, headless, markup)),
        nested=Pattern(markup),
        last=Pattern(last),
        unwrapped=re.compile(Seq(SPACE, wrap_end).whole(True)),
        marks=candidates(markup.leads() | last.leads() | call_end.leads()),
    )
