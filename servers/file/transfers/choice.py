"""The backends that any loop can drive, by name."""

from __future__ import annotations

from pollers.system import HAS_SPLICE
from servers.file.transfers.base import Transfer
from servers.file.transfers.copy import CopyTransfer
from servers.file.transfers.sendfile import SendfileTransfer
from servers.file.transfers.splice import SpliceTransfer
from servers.lifecycle import CannotServe


def choose(backend: str) -> Transfer:
    """`copy`, `sendfile` or `splice`.  Raises CannotServe where the system has none, OSError."""
    if backend == "splice":
        if not HAS_SPLICE:
            raise CannotServe("--backend splice: splice(2) exists on Linux only; use sendfile")
        return SpliceTransfer()
    return SendfileTransfer() if backend == "sendfile" else CopyTransfer()
