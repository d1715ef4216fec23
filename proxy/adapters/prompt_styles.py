"""How model families are shown tools and results in a prompt: a table.

A family that was trained on one way of being told about tools does best with that
way, so the lists follow the families' own chat templates. Rendering is a function
of the request alone, in the client's order, so that an upstream's prefix cache
finds the same text in every turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from proxy.wire.openai import Json, function_of

# Schemas deeper than this are cut in the readable list; the names above are what models need.
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool answered, and the call that it answers."""

    name: str
    arguments: Mapping[str, Any] | str
    text: str


@dataclass(frozen=True, slots=True)
class Style:
    """One family's way."""

    tools: Callable[[Sequence[Json]], str]
    result: Callable[[Result], str]
    around: tuple[str, str] | None = None

    def results(self, results: Sequence[Result]) -> str:
        text = "\n".join(self.result(result) for result in results)
        return text if self.around is None else f"{self.around[0]}\n{text}\n{self.around[1]}"


def style_of(format: str) -> Style:
    return _STYLES.get(format, _JSON_LINES)


# tools


def _json_lines(tools: Sequence[Json]) -> str:
    return _tagged("tools", (_json(tool) for tool in tools))


def _tool_elements(tools: Sequence[Json]) -> str:
    return _tagged("tools", (f"<tool>{_json(function_of(tool))}</tool>" for tool in tools))


def _function_elements(tools: Sequence[Json]) -> str:
    return _tagged("tools", (_tagged("function", _function(function_of(tool))) for tool in tools))


def _schemas(tools: Sequence[Json]) -> str:
    return "\n".join(_json(function_of(tool)) for tool in tools)


def _function(function: Json) -> list[str]:
    lines = [f"<name>{function.get('name', '')}</name>"]
    if function.get("description"):
        lines.append(f"<description>{str(function['description']).strip()}</description>")
    parameters = function.get("parameters")
    if isinstance(parameters, dict):
        properties = parameters.get("properties")
        elements = [
            _tagged("parameter", _parameter(name, schema))
            for name, schema in (properties.items() if isinstance(properties, dict) else ())
        ]
        elements += _elements(parameters, without=("type", "properties"))
        lines.append(_tagged("parameters", elements))
    return lines + _elements(function, without=("name", "description", "parameters"))


def _parameter(name: str, schema: Any) -> list[str]:
    lines = [f"<name>{name}</name>"]
    if not isinstance(schema, dict):
        return lines
    if "type" in schema:
        lines.append(f"<type>{_scalar(schema['type'])}</type>")
    if schema.get("description"):
        lines.append(f"<description>{str(schema['description']).strip()}</description>")
    return lines + _elements(schema, without=("type", "description"))


def _elements(values: Json, *, without: tuple[str, ...]) -> list[str]:
    return [f"<{key}>{_scalar(value)}</{key}>" for key, value in values.items() if key not in without]


def _numbered(tools: Sequence[Json]) -> str:
    """Toolify's list: made for models that were never shown a JSON schema."""
    return "\n\n".join(_numbered_tool(index, function_of(tool)) for index, tool in enumerate(tools, 1))


def _numbered_tool(number: int, function: Json) -> str:
    schema = function.get("parameters")
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = [name for name in _required(schema) if isinstance(name, str)]
    summary = ", ".join(f"{name} ({_type(value)})" for name, value in properties.items())
    lines = [f"{number}. {function.get('name', '')}"]
    if function.get("description"):
        lines += ["   Description:", "```", str(function["description"]).strip(), "```"]
    lines += [f"   Parameters: {summary or 'none'}", f"   Required: {', '.join(required) or 'none'}"]
    for name, value in properties.items():
        lines += _bullets(name, value, required=name in required, depth=1)
    return "\n".join(lines)


def _bullets(name: str, schema: Any, *, required: bool, depth: int) -> list[str]:
    indent = "  " * depth
    lines = [f"{indent} - {name}: {_type(schema)}, {'required' if required else 'optional'}"]
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return lines
    if schema.get("description"):
        lines.append(f"{indent}   {str(schema['description']).strip()}")
    for key, value in schema.items():
        if key not in ("type", "description", "properties", "items", "required"):
            lines.append(f"{indent}   {key}: {_scalar(value)}")
    inner_required = _required(schema)
    if isinstance(schema.get("properties"), dict):
        for key, value in schema["properties"].items():
            lines += _bullets(key, value, required=key in inner_required, depth=depth + 1)
    if "items" in schema:
        lines += _bullets("each item", schema["items"], required=True, depth=depth + 1)
    return lines


def _required(schema: Json) -> list[Any]:
    names = schema.get("required")
    return names if isinstance(names, list) else []


def _type(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, list):
        return " or ".join(str(each) for each in kind)
    return str(kind) if kind else "any"


# results


def _in(tag: str) -> Callable[[Result], str]:
    return lambda result: f"<{tag}>\n{result.text}\n</{tag}>"


def _named_result(result: Result) -> str:
    output = f"<output>\n{result.text}\n</output>"
    return f"<result>\n<tool_name>{result.name}</tool_name>\n{output}\n</result>"


def _told_result(result: Result) -> str:
    arguments = result.arguments if isinstance(result.arguments, str) else _json(result.arguments)
    head = f"Result of the tool {result.name}"
    head += f", called with {arguments}:" if arguments else ":"
    return f"{head}\n<tool_result>\n{result.text}\n</tool_result>"


# text


def _tagged(tag: str, lines: Any) -> str:
    return "\n".join((f"<{tag}>", *lines, f"</{tag}>"))


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_FUNCTION_RESULTS = ("<function_results>", "</function_results>")
_JSON_LINES = Style(_json_lines, _in("tool_response"))
_QWEN = Style(_function_elements, _in("tool_response"))
_MINIMAX = Style(_tool_elements, _in("response"))
_STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "qwen3_xml": _QWEN,
        "mimo_xml": _QWEN,
        "seed_oss": _QWEN,
        "auto": _QWEN,
        "minimax_m2": _MINIMAX,
        "minimax_m3": _MINIMAX,
        "dsml": Style(_schemas, _in("result"), _FUNCTION_RESULTS),
        "deepseek_v3": Style(_schemas, _in("result"), _FUNCTION_RESULTS),
        "deepseek_v31": Style(_schemas, _in("result"), _FUNCTION_RESULTS),
        "anthropic_xml": Style(_json_lines, _named_result, _FUNCTION_RESULTS),
        "toolify_xml": Style(_numbered, _told_result),
    }
)
