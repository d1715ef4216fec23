"""Memory that what clients send is read into, whoever sends it: it is taken out before anybody reads again.

What is copied from here is copied once more than it must be. So a request that is
large should not lie here, but be read into its body, which exists once its head is known.
"""

# As much as uvloop reads at once, for bodies that cannot be read where they belong.
INBOX_BYTES = 256 * 1024

# What is read at first of a request: most of them whole, and little of one that is large.
FIRST_BYTES = 16 * 1024


class Inbox:
    """`first` is to be read into while a head may come, or a body begins; `whole` later on."""

    def __init__(self) -> None:
        self.whole = memoryview(bytearray(INBOX_BYTES))
        self.first = self.whole[:FIRST_BYTES]

    def take(self, size: int) -> bytes:
        """The first `size` bytes, which have just been read."""
        return self.whole[:size].tobytes()
