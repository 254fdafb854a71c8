"""Servers written once and driven by any poller or loop, so that only the loop differs.

listen.py     the listening socket and the options that every connection gets
lifecycle.py  what a server says (ready line, counters) and the signals that it obeys
workers.py    several processes on one port
cli.py        the command line that all servers share
reactor.py    our event loop over any Poller; accept.py its acceptor; pipes.py its pipe pool
asyncio_loop.py, trio_loop.py  what servers on these loops have in common
echo/         `python -m servers.echo`
http/         HTTP/1.1 without sockets and files
file/         `python -m servers.file`
"""

import os

# numpy (for aio) would start a thread a core for linear algebra, which no server does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
