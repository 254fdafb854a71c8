"""The end of a connection on the reactor whose last answer went out.

A close while the client still sends, or has sent what nobody read, would be a reset, which can
destroy the answer on its way (RFC 9112 9.6).  So what comes is read and thrown away until the
client closes too, up to LINGER_BYTES; the deadline is the service's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from servers.file.service import LINGER_BYTES, RECEIVE


class Lingering:
    """Reads by `recv`, which does not wait, and calls `drop` when it is over.

    `orderly`: the client is sending nothing, so that there is nothing to wait for.
    """

    __slots__ = ("_discarded", "_drop", "_orderly", "_recv")

    def __init__(
        self, recv: Callable[[int], bytes], orderly: bool, drop: Callable[[], None]
    ) -> None:
        self._recv: Final = recv
        self._orderly: Final = orderly
        self._drop: Final = drop
        self._discarded = 0

    def on_readable(self, bits: int) -> None:
        while self._discarded < LINGER_BYTES:
            try:
                data = self._recv(RECEIVE)
            except BlockingIOError:
                if self._orderly and not self._discarded:
                    break
                return
            except OSError:
                break
            if not data:
                break
            self._discarded += len(data)
        self._drop()
