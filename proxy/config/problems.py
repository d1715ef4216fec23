"""What is wrong with a configuration: all of it, each with its line and its way out.

No message may show key material: values of confidential fields are never shown, and
what came out of `${…}` is shown as it was written. Names of keys are shown only if
they look like names, because a key typed in the wrong place is still a key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Long enough for any URL people mistype, short enough for one terminal line.
MAX_SHOWN = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")
_DIGIT = re.compile(r"[0-9]")
# Names of ours have at most a version and a size in them (qwen3-235b-a22b: six
# digits); a random key of that length has more, or begins with `sk-`.
_MAX_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: where it stands, what was found, what to write instead."""

    line: int
    path: str
    found: str
    sentence: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        found = f"found {self.found}; " if self.found else ""
        return f"{place}{found}{self.sentence}"


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` holds every reason."""

    def __init__(self, origin: str, problems: Sequence[Problem]) -> None:
        self.origin = origin
        self.problems = sorted(set(problems), key=lambda problem: (problem.line, problem.path))
        super().__init__(origin, self.problems)

    def __str__(self) -> str:
        return "\n".join(f"{self.origin}:{problem.line}: {problem}" for problem in self.problems)


def shown(text: str) -> str:
    """A value as a message may show it: on one line, quoted, cut."""
    quoted = ascii(text) if len(text) <= MAX_SHOWN else ascii(text[:MAX_SHOWN]) + "…"
    return f'"{quoted[1:-1]}"' if quoted.endswith("'") else quoted


def shown_key(key: str) -> str:
    """A mapping's key, if it looks like a name and not like somebody's secret."""
    looks_like_name = _NAME.fullmatch(key) and not key.startswith("sk-")
    return key if looks_like_name and len(_DIGIT.findall(key)) < _MAX_DIGITS else "(not shown)"
