"""Backend `aio`: O_DIRECT reads by io_submit(2), completions by eventfd in the same poller.

Facts
-----
*   It reads past the page cache: each request goes to the disk, however often the file was read,
    and the loop does not wait for it.  That is what it is for: cold files, and files that are
    larger than memory.  For hot ones every other backend is faster.
*   A block of file bytes lives in one of the reader's buffers until the socket took it.  There are
    DEPTH of them, so a connection whose peer is slow must not keep one from the others: it is
    the first to give its block up when a read waits for a buffer, and reads it again later.
*   Reads that are asked for in one batch of events go out by one io_submit(2) at its end.
*   What is not on a filesystem with direct I/O cannot be served this way.  It is said at the start
    for the files of the root, and logged for others.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

from pollers.aio.disk import ALIGNMENT, Block, DirectFile, DiskReader, Ticket, open_direct
from pollers.base import POLLIN
from pollers.system import MSG_MORE
from servers.file.cache import OpenFile
from servers.file.plan import Plan
from servers.file.root import Root
from servers.file.transfers.base import LEAST, Pending, Sender, Truncated
from servers.lifecycle import CannotServe
from servers.reactor import Reactor

#: Reads under way at once, and the bytes of one.
DEPTH: Final = 64
BLOCK: Final = 128 * 1024


class AioTransfer:
    """The backend; see Transfer.  Raises CannotServe, and OSError where AIO is refused."""

    name = "aio"

    def __init__(self, reactor: Reactor, root: Root) -> None:
        _check(root)
        self.reader = DiskReader(DEPTH, BLOCK)
        self._reactor = reactor
        self._flushing = False
        #: Movers that keep a block for a slow peer, the longest holder first.
        self._holders: dict[AioMover, None] = {}
        reactor.add(self.reader.fileno(), POLLIN, self._on_completions)

    def sender(self, sock: socket.socket) -> Sender:
        send = sock.send

        def first(plan: Plan) -> int:
            # What has content waits for the disk; its head goes out with MSG_MORE meanwhile.
            return 0 if plan.count else send(plan.head)

        return first

    def mover(
        self, file: OpenFile, offset: int, count: int, last: bool, resume: Callable[[], None]
    ) -> AioMover:
        return AioMover(self, _direct(file), offset, count, last, resume)

    def read(
        self, file: DirectFile, offset: int, count: int, done: Callable[[Block], None]
    ) -> Ticket:
        """Ask for a block; the reads of one batch of events go out together."""
        if not self._flushing:
            self._flushing = True
            self._reactor.soon(self._flush)
        return self.reader.submit(file, offset, count, done)

    def hold(self, mover: AioMover) -> None:
        """Its peer takes nothing more now: its block is the next to be given up."""
        self._holders[mover] = None
        if self.reader.waiting and not self._flushing:  # else _flush() will see who has to wait
            self._make_room()

    def hold_no_more(self, mover: AioMover) -> None:
        """It goes on, or has ended."""
        self._holders.pop(mover, None)

    def close(self) -> None:
        self.reader.close()

    def _on_completions(self, bits: int) -> None:
        self.reader.reap()
        if self.reader.waiting:
            self._make_room()

    def _flush(self) -> None:
        self._flushing = False
        self.reader.flush()
        if self.reader.waiting:
            self._make_room()

    def _make_room(self) -> None:
        """Have a slow peer's block given up for each read that waits for a buffer."""
        for mover in list(self._holders)[: self.reader.waiting]:
            del self._holders[mover]
            mover.give_up()


class AioMover:
    """See Mover."""

    __slots__ = (
        "_block",
        "_direct",
        "_error",
        "_last",
        "_offset",
        "_resume",
        "_ticket",
        "_transfer",
        "_view",
        "_window",
        "full",
        "left",
    )

    def __init__(
        self,
        transfer: AioTransfer,
        direct: DirectFile,
        offset: int,
        count: int,
        last: bool,
        resume: Callable[[], None],
    ) -> None:
        self.left = count
        self.full = False
        self._transfer = transfer
        self._direct = direct
        self._offset = offset
        self._last = last
        self._resume = resume
        self._window = BLOCK
        self._ticket: Ticket | None = None
        self._block: Block | None = None
        #: What of the block is still to go.
        self._view = memoryview(b"")
        self._error: OSError | None = None

    def move(self, sock: socket.socket) -> int:
        if self._error is not None:
            raise self._error
        if self._block is None:
            if self._ticket is None:
                count = min(self.left, self._window)
                self._ticket = self._transfer.read(self._direct, self._offset, count, self._done)
            raise Pending
        view = self._view
        if not view:
            raise Truncated
        self.full = False
        self._transfer.hold_no_more(self)
        try:
            sent = sock.send(view, 0 if self._last and len(view) == self.left else MSG_MORE)
        except BlockingIOError:
            self._transfer.hold(self)
            raise
        self._offset += sent
        self.left -= sent
        if sent == len(view):
            self._release()
            self._window = BLOCK
        else:
            self._view = view[sent:]
            self._window = max(LEAST, min(BLOCK, 2 * sent))
            self.full = True
            self._transfer.hold(self)
        return sent

    def give_up(self) -> None:
        """Let others have the buffer; the bytes are read again when the peer takes some."""
        self._release()

    def close(self) -> None:
        self._transfer.hold_no_more(self)
        if self._ticket is not None:
            self._transfer.reader.cancel(self._ticket)
            self._ticket = None
        self._release()

    def _done(self, block: Block) -> None:
        self._ticket = None
        if block.error is not None:
            self._error = block.error
            block.release()
        else:
            self._block = block
            self._view = block.view
        self._resume()

    def _release(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            self._view = memoryview(b"")
            block.release()


def _direct(file: OpenFile) -> DirectFile:
    """The file, opened once more for direct reads; closed with it.  Raises OSError."""
    if not isinstance(file.companion, DirectFile):
        file.companion = direct_file(file.fd)
    return file.companion


def direct_file(fd: int, most: int = ALIGNMENT) -> DirectFile:
    """Open a file once more, for direct reads by a reader made for an alignment of `most`.

    Raises OSError where it has none, or only in larger units.
    """
    direct = open_direct(fd)
    unit = max(direct.alignment)
    if unit > most:
        direct.close()
        raise OSError(
            errno.EOPNOTSUPP, f"direct I/O on this file asks for units of {unit} bytes, not {most}"
        )
    return direct


def _check(root: Root) -> None:
    """Raise CannotServe where the first file of the root has no direct I/O."""
    try:
        entries = root.entries(b"")
    except FileNotFoundError:  # it may not be listed: each file tells when it is asked for
        return
    for entry in entries:
        if entry.directory:
            continue
        try:
            fd, _ = root.open(entry.name)
        except FileNotFoundError:  # not to be read by us, or gone
            continue
        with open(fd, "rb") as file:
            try:
                direct_file(file.fileno()).close()
            except OSError as error:
                raise CannotServe(
                    f"--backend aio: {error.strerror}; use --backend sendfile"
                ) from None
        return
