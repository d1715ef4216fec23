"""`${VAR}`, `${VAR:-default}` and `${file:/path}` inside a piece of text.

What is put in is text and stays text: it is never read as YAML, and a `$` in it
means nothing. `$$` stands for one `$`; any other `$` is a `$`. A default and a file
name may hold further `${…}` (`${file:${CREDENTIALS_DIRECTORY}/key}`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ReadFile = Callable[[str], str]

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_FILE = "file:"


class ExpansionError(ValueError):
    """Something could not be put in; the text says what and never holds a value."""


@dataclass(frozen=True, slots=True)
class Expander:
    """Where variables and files come from."""

    environ: Mapping[str, str]
    read_file: ReadFile

    def expand(self, text: str) -> str:
        pieces = []
        position = 0
        while (dollar := text.find("$", position)) >= 0:
            pieces.append(text[position:dollar])
            following = text[dollar + 1 : dollar + 2]
            if following == "{":
                end = _closing_brace(text, dollar + 2)
                pieces.append(self._look_up(text[dollar + 2 : end]))
                position = end + 1
            else:
                pieces.append("$")
                position = dollar + (2 if following == "$" else 1)
        pieces.append(text[position:])
        return "".join(pieces)

    def _look_up(self, inside: str) -> str:
        if inside.startswith(_FILE):
            return self._file(self.expand(inside.removeprefix(_FILE)))
        match = _VARIABLE.fullmatch(inside)
        if match is None:
            raise ExpansionError("write ${NAME}, ${NAME:-default} or ${file:/path}, or $$ for a $ sign")
        name, default = match.groups()
        value = self.environ.get(name, "")
        if value or (name in self.environ and default is None):
            return value
        if default is None:
            raise ExpansionError(f"the environment variable {name} is not set")
        return self.expand(default)

    def _file(self, path: str) -> str:
        try:
            return self.read_file(path).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ExpansionError(f"cannot read the file {path}: {reason}") from error


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        if text[position] == "}":
            depth -= 1
        elif text.startswith("${", position):
            depth += 1
        if depth == 0:
            return position
    raise ExpansionError("a ${ has no closing brace")
