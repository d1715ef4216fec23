"""Configurations without a file."""

from collections.abc import Mapping

from proxy.config.load import parse
from proxy.config.schema import Config

SIDECAR = """
server:
  listen: "${LLMPROXY_LISTEN:-127.0.0.1:8000}"
backends:
  - url: "${LLMPROXY_UPSTREAM}"
    api_key: "${LLMPROXY_UPSTREAM_KEY:-}"
"""


def sidecar(upstream_url: str, environ: Mapping[str, str]) -> Config:
    """In front of one upstream, without keys or limits, on 127.0.0.1 unless told otherwise.

    LLMPROXY_LISTEN and LLMPROXY_UPSTREAM_KEY may be set; a bad URL is a ConfigError.
    """
    return parse(
        SIDECAR,
        {**environ, "LLMPROXY_UPSTREAM": upstream_url},
        read_file=dict[str, str]().__getitem__,  # there are none to read
        origin="command line",
    )
