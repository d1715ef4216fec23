"""Embeddings without a model: a unit vector that depends on the text alone."""

import math
from array import array
from base64 import b64encode
from collections.abc import Sequence
from hashlib import shake_128

DEFAULT_DIMENSIONS = 64
# The widest embedding models in use have 4,096 dimensions.
MAX_DIMENSIONS = 8192


def vector(text: str, dimensions: int) -> list[float]:
    raw = array("h", shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions))
    norm = math.sqrt(sum(number * number for number in raw)) or 1.0
    return [number / norm for number in raw]


def packed(numbers: Sequence[float]) -> str:
    """The base64 form that openai-python asks for by default: little-endian 32-bit floats."""
    return b64encode(array("f", numbers).tobytes()).decode()
