"""`python -m servers.echo`: see `--help`, and servers.lifecycle for what it prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from servers import cli, workers
from servers.echo.options import BACKENDS, EchoOptions
from servers.lifecycle import CannotServe, log


def main(arguments: Sequence[str] | None = None) -> int:
    parser = cli.parser("servers.echo", "A TCP server that writes back what it reads.", BACKENDS)
    parser.add_argument(
        "--idle-timeout",
        type=cli.seconds,
        default=0.0,
        metavar="S",
        help="close a connection that moved nothing for S to 1.25 S seconds (0: never)",
    )
    try:
        parsed = parser.parse_args(arguments)
        options = cli.options(EchoOptions, parsed, BACKENDS, idle_timeout=parsed.idle_timeout)
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
