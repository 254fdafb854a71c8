"""Print the changes below a directory as they come.

A line each: what happened, and the path; of a rename "source -> path".  A name with control
characters in it, or that is no text, is printed as Python writes it.  Ctrl-C or SIGTERM ends it,
with counts on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pollers.watch import registry
from pollers.watch.base import Change, Kind, Watcher, as_path
from pollers.watch.debounce import Debounced

EPILOG = """exit status: 0 after Ctrl-C, SIGTERM or when nobody reads the output any more, 1 when
what was watched is gone, 2 where it cannot be watched"""


STDOUT: Final = 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pollers.watch",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("directory", metavar="DIR", help="with all that is below it")
    option("--watcher", choices=("auto", *registry.names()), default="auto", help="(auto)")
    option("--json", action="store_true", help="print one JSON object a line")
    option("--debounce", type=_seconds, default=0.0, metavar="S", help="gather changes for S s")
    option("--period", type=_seconds, default=registry.PERIOD, metavar="S", help="of stat (1)")
    option("--no-recursive", action="store_true", help="only the names in DIR itself")
    options = parser.parse_args(arguments)
    try:
        directory = as_path(options.directory)
    except ValueError as error:
        parser.error(str(error))
    try:
        watcher = registry.create(options.watcher, period=options.period or registry.PERIOD)
        with Debounced(watcher, options.debounce) if options.debounce else watcher as watching:
            watching.add(directory, recursive=not options.no_recursive)
            return _print(watching, directory, options.json)
    except KeyboardInterrupt:
        _say(f"ended before {_shown(directory)} was watched")
        return 0
    except OSError as error:
        why = error.strerror or str(error)
        if error.filename is not None:
            why = f"{os.fsdecode(error.filename)}: {why}"
        remedy = "" if ";" in why else "; name a directory that can be read"
        parser.exit(2, f"{parser.prog}: {why}{remedy}\n")


def _print(watcher: Watcher, directory: bytes, as_json: bool) -> int:
    """Print until a signal comes, nobody reads any more, or the directory is gone."""
    told: Counter[str] = Counter()
    gone = Change(Kind.DELETED, directory, None, True)
    _say(f"{watcher.name}: watching {_shown(directory)}; Ctrl-C ends it")
    try:
        with _signals() as signalled:
            poll = select.poll()
            poll.register(signalled, select.POLLIN)
            poll.register(watcher.fileno(), select.POLLIN)
            poll.register(STDOUT, 0)  # a pipe without a reader is reported unasked
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if not ready <= {watcher.fileno()}:
                    return 0
                changes = watcher.read()
                told.update(change.kind.value for change in changes)
                lines = (json.dumps(c.as_dict()) if as_json else line(c) for c in changes)
                if not _write("".join(text + "\n" for text in lines).encode(), signalled):
                    return 0
                if gone in changes:
                    _say(f"{_shown(directory)} is gone")
                    return 1
    except BrokenPipeError:
        return 0
    finally:
        counts = ", ".join(f"{count} {kind}" for kind, count in told.items()) or "no changes"
        _say(f"{counts}; {watcher.counters.overflows} overflows")


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """An fd that is readable once SIGINT or SIGTERM has come, which do nothing else."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {
        number: signal.signal(number, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield reading
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def line(change: Change) -> str:
    """A change in one line of text."""
    text = f"{change.kind.value:10} "
    if change.source is not None:
        text += f"{_shown(change.source)} -> "
    return text + _shown(change.path) + ("/" if change.directory else "")


def _shown(path: bytes) -> str:
    """A path in one line, whatever is in it."""
    text = path.decode(errors="surrogateescape")
    return text if text.isprintable() else repr(path)


def _write(text: bytes, signalled: int) -> bool:
    """All of it; False where a signal came while nobody took it, who may never do.

    Not by sys.stdout, which would try again at exit what a closed pipe has refused.
    """
    poll = select.poll()
    poll.register(signalled, select.POLLIN)
    poll.register(STDOUT, select.POLLOUT)
    left = memoryview(text)
    while left:
        if STDOUT not in {fd for fd, _ in poll.poll()}:
            return False
        left = left[os.write(STDOUT, left[: select.PIPE_BUF]) :]  # which does not wait
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise ValueError(text)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
