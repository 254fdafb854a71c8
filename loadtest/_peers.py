"""Servers of others that are measured beside ours, where they are installed."""

from __future__ import annotations

import os
import shutil
from typing import Final

#: Who can be started here, by the name that --server knows.
PEERS: Final = ("nginx",)
#: Where servers are that an ordinary user's PATH often lacks.
PLACES: Final = ("/usr/sbin", "/usr/local/sbin")


def program(name: str) -> str | None:
    """The path of the program called `name`; None where it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))


def missing(name: str) -> str:
    """Why the peer called `name` cannot run here, in one line; "" where it can."""
    if program(name) is None:
        return f"{name} is not installed (it is only a peer to compare with)"
    return ""
