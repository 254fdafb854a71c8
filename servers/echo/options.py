"""What is asked of an echo server beyond what is asked of any server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from servers.cli import LOOPS, Backends, Options

BACKENDS: Final[Backends] = {"copy": LOOPS, "splice": ("reactor",), "batch": ("reactor",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoOptions(Options):
    """`idle_timeout` is in seconds; 0 means that an idle connection stays."""

    idle_timeout: float
