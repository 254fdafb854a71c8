"""`python -m servers.file`: see `--help`, and servers.lifecycle for what it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from servers import cli, workers
from servers.file.options import BACKENDS, FileOptions, add, further
from servers.lifecycle import CannotServe, log


def main(arguments: Sequence[str] | None = None) -> int:
    parser = cli.parser("servers.file", "A static HTTP/1.1 server for a directory.", BACKENDS)
    add(parser)
    try:
        parsed = parser.parse_args(arguments)
        options = cli.options(FileOptions, parsed, BACKENDS, **further(parsed))
        # Only the loop that was asked for is imported: the others may be missing here.
        if options.loop == "reactor":
            from servers.file.on_reactor import serve
        elif options.loop == "trio":
            from servers.file.on_trio import serve
        else:
            from servers.file.on_asyncio import serve
        return workers.run("file", options, serve, scheme="http")
    except CannotServe as error:
        log(f"servers.file: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
