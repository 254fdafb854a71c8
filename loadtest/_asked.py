"""What was asked on the command line of `compare`, checked: what its workloads have in common."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pollers import system


class BadInput(ValueError):
    """What was asked cannot be; `str()` is one line."""


@dataclass(frozen=True)
class Standalone:
    """A workload that is measured without Locust: what __main__ knows of it."""

    name: str
    #: For --help, without newlines.
    about: str
    #: Adds its options to the parser of `compare`, but for those that another one has added.
    add_options: Callable[[argparse.ArgumentParser], None]
    #: The options that not every workload has and that it takes, without their dashes.
    options: tuple[str, ...]
    #: Does all of it, from the parsed options and time.monotonic() at the start; returns the exit
    #: code.  Raises BadInput.
    run: Callable[[argparse.Namespace, float], int]


def directory(out: Path, flag: str = "--out") -> Path:
    """`out`, made and shown to be writable; `flag` named it.  Raises BadInput."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BadInput(
            f"{flag} {out} cannot be written: {error.strerror}; name another directory"
        ) from None
    return out


def cpus(server: str, load: str) -> tuple[str, str]:
    """The cores as Locust's options take them.  Raises BadInput."""
    known = system.cores()
    for flag, text in (("--server-cpu", server), ("--load-cpu", load)):
        parts = text.split(",")
        if text in ("auto", "none"):
            continue
        if not all(part.isdecimal() and int(part) in known for part in parts):
            cores = ", ".join(map(str, known)) or "none that can be chosen"
            raise BadInput(f"{flag} {text!r}: cores here are {cores}; or say auto or none")
    return server, load


def given(parsed: argparse.Namespace, name: str, chosen: Mapping[str, Any]) -> Any:
    value = getattr(parsed, name)
    return chosen[name] if value is None else value


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            bound = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {bound}, not {text}")
        return number

    return whole_number


def seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 seconds, not {text}")
    return seconds
