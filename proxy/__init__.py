"""LLMProxy: a light, byte-transparent gateway in front of LLM servers."""

__version__ = "0.1.0"
