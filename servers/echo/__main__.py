"""`python -m servers.echo`: see `--help`, and servers.lifecycle for what it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from servers import cli, workers
from servers.lifecycle import CannotServe, log

BACKENDS = ("copy", "splice")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = cli.parser("servers.echo", "A TCP server that writes back what it reads.", BACKENDS)
    try:
        options = cli.options(parser.parse_args(arguments))
        # Only the loop that was asked for is imported: the others may be missing here.
        if options.loop == "reactor":
            from servers.echo.on_reactor import serve
        elif options.loop == "trio":
            from servers.echo.on_trio import serve
        else:
            from servers.echo.on_asyncio import serve
        return workers.run("echo", options, serve)
    except CannotServe as error:
        log(f"servers.echo: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
