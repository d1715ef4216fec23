"""Something that may be long, kept whole while it is short and as its two ends after that.

Usage stands near the end of an answer, its id near the beginning; between the two may
be megabytes of embeddings or of base64. What is kept depends on the bytes alone, never
on how they were cut.
"""

from typing import Final

# A chat answer, or one event, of 16 KiB holds some 4,000 tokens of text and is still
# parsed in some 20 us. 5000 open streams of which every one has stopped inside a
# longer event hold 5000 × 16 KiB = 80 MB, and the usual stream holds nothing at all.
WHOLE_BYTES: Final = 16 * 1024
HEAD_BYTES: Final = 1024
TAIL_BYTES: Final = WHOLE_BYTES - HEAD_BYTES


class Ends:
    """Collects bytes: all of them in `head` up to WHOLE_BYTES, then a short head and a tail."""

    __slots__ = ("head", "size", "tail")

    def __init__(self, data: bytes = b"") -> None:
        self.size = 0
        self.head = b""
        self.tail = b""
        self.add(data)

    @property
    def is_whole(self) -> bool:
        return self.size <= WHOLE_BYTES

    def add(self, data: bytes) -> None:
        before, self.size = self.size, self.size + len(data)
        if self.size <= WHOLE_BYTES:
            self.head += data
            return
        if before <= WHOLE_BYTES:
            self.tail = self.head
            self.head = (self.head + data[:HEAD_BYTES])[:HEAD_BYTES]
        self.tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self.tail + data)[-TAIL_BYTES:]
