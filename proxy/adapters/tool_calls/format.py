"""What a format is: the spellings of its marks and a few choices, nothing that runs.

Tags are written as a model writes them. `{name}`, `{key}` and the like stand for
what is captured there, white space stands for any white space, and the first of
several spellings is the one that we write ourselves.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Body(Enum):
    """How the arguments of a call are written."""

    ELEMENTS = "elements"  # one XML element per argument, its text raw
    JSON = "json"  # one JSON object behind the head that names the tool
    OBJECTS = "objects"  # JSON objects that hold the name and the arguments
    PYTHON = "python"  # name(key=value), in a list or one per line
    BRACES = "braces"  # name{key:value} with string marks of its own
    TREE = "tree"  # elements named after the arguments, nested
    NONE = "none"  # only what `also` lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One model family's way of writing tool calls."""

    name: str
    body: Body
    # Around one or several calls.
    wrap: tuple[str, ...] = ()
    wrap_end: tuple[str, ...] = ()
    # Around one call; the head captures {name}.
    call: tuple[str, ...] = ()
    call_end: tuple[str, ...] = ()
    # Around one argument; the head captures {key}, and {type} where the format says its type there.
    argument: tuple[str, ...] = ()
    argument_end: tuple[str, ...] = ()

    # May a call stand without its wrap? Models forget it.
    bare: bool = True
    # What a tool's name is made of, where a head does not say where the name ends.
    name_of: str = r"[^<>\n]"
    # What an argument's key is made of.
    key_of: str = r"[^<>\n]"
    # How {type} says "a string" and "anything else"; an empty second word stands for the type's own name.
    type_words: tuple[str, str] = ("true", "false")
    # One line break at each end of a value is the format's, not the value's.
    trim: bool = False
    # A lone argument of this name holds all arguments, unless the tool has such a property.
    unwrap: tuple[str, ...] = ()
    # A tool's name may differ in case.
    fold: bool = False

    # JSON objects with a name and arguments may stand in the wrap, beside the body.
    objects: bool = False
    name_keys: tuple[str, ...] = ("name",)
    arguments_keys: tuple[str, ...] = ("arguments", "parameters")
    # The object has the tool's name as its key and the arguments as that key's value.
    keyed: bool = False
    # The JSON stands in a CDATA section, in which `]]>` is written as `]]]]><![CDATA[>`.
    cdata: bool = False
    # The mark around strings in braces.
    quote: str = ""
    # What stands before every tag of a tree.
    prefix: str = ""

    # Text between these marks holds no calls, where nothing has split the thinking off.
    quiet: tuple[str, str] | None = None
    # A mark that only this request's prompt knows must stand before the wrap.
    trigger: bool = False
    # Marks that are never content: end-of-turn tokens and stray ends.
    drop: tuple[str, ...] = ()
    # Ends that are nobody's text once there has been a call; before, they belong to what was none.
    drop_late: tuple[str, ...] = ()
    # Writing: parts stand on lines of their own, and all calls of an answer share a wrap.
    lines: bool = True
    one_wrap: bool = False
    # Writing, of objects and Python calls: all in one list, or what stands between them.
    listed: bool = False
    between: str = ""

    # The marks are special tokens: an upstream needs `skip_special_tokens: false` to show them.
    special_tokens: bool = False
    # What happens to a call of a tool that the request does not have.
    unknown_tools: Literal["forward", "text"] = "forward"
    # A call id as the model's template wants it: 24 or 9 characters, or what `native_id` is filled to.
    id_style: Literal["call", "nine", "native"] = "call"
    native_id: str = ""
    # The reasoning family that goes with it, and whether earlier reasoning is sent back upstream.
    reasoning: str | None = "think"
    interleaved: bool = False

    # Formats whose calls are taken too; with `lock`, the first call decides for the whole answer.
    also: tuple["Format", ...] = ()
    lock: bool = False
