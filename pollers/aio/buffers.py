"""Memory for direct reads: equal buffers, aligned, in one mapping.

Facts
-----
*   Direct I/O writes into the process's pages behind the CPU's back.  A buffer is therefore taken
    from here before its read goes to the kernel, and given back only after its completion.
*   The mapping is anonymous and *shared* (MAP_SHARED).  A private one is copied on write after
    fork(2), and on older kernels the page that a device was writing to could end up the child's.
    Pages that no read has used cost nothing.
*   What was given back last is taken first: its pages, and their cache lines, are warm.
*   The mapping lives for as long as a memoryview of it does, whatever was closed meanwhile.
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """`count` buffers of at least `size` bytes, each at a multiple of `alignment`."""

    __slots__ = ("_memory", "_stride", "addresses", "free")

    def __init__(self, count: int, size: int, alignment: int) -> None:
        stride = -(-size // alignment) * alignment
        # One alignment more: a mapping begins at a page, and a page may be less than that.
        memory = mmap.mmap(-1, count * stride + alignment)
        address = np.frombuffer(memory, np.uint8).ctypes.data
        first = -address % alignment
        self._stride = stride
        # Slices of it are read-only too: what a reader hands out may still belong to the kernel.
        self._memory = memoryview(memory).toreadonly()[first:]
        #: Where each buffer begins.
        self.addresses = [address + first + number * stride for number in range(count)]
        #: The numbers of those that nobody has: pop() takes, append() gives back.
        self.free = list(range(count - 1, -1, -1))

    def view(self, number: int, start: int, stop: int) -> memoryview:
        """The bytes from `start` to `stop` of one buffer, read-only."""
        base = number * self._stride
        return self._memory[base + start : base + stop]

    def rows(self) -> NDArray[np.uint8]:
        """All of them as one read-only array, a row each."""
        count = len(self.addresses)
        flat = np.frombuffer(self._memory, np.uint8, count * self._stride)
        return flat.reshape(count, self._stride)

    def close(self) -> None:
        """Let the mapping go once no view of it is left.  The kernel must be done with it."""
        self._memory = memoryview(b"")
