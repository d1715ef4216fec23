"""The configuration: YAML in, one tree of frozen values out, or every problem at once."""

from proxy.config.changes import needs_restart
from proxy.config.json_schema import json_schema
from proxy.config.load import parse, parse_keys
from proxy.config.presets import sidecar
from proxy.config.problems import ConfigError, Problem
from proxy.config.reference import reference
from proxy.config.schema import Config

__all__ = [
    "Config",
    "ConfigError",
    "Problem",
    "json_schema",
    "needs_restart",
    "parse",
    "parse_keys",
    "reference",
    "sidecar",
]
