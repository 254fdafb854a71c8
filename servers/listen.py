"""The listening socket, made the same way for every loop.

Facts
-----
*   TCP_NODELAY set on a listening socket is inherited by what it accepts, on Linux and FreeBSD,
    so it costs nothing per connection.  (asyncio, uvloop and trio set it again by themselves.)
*   The kernel silently cuts a backlog down to net.core.somaxconn (kern.ipc.soacceptqueue).
*   SO_REUSEPORT spreads connections over processes on Linux; on FreeBSD that is the work of
    SO_REUSEPORT_LB (FreeBSD 12), and SO_REUSEPORT only lets the last one win.
"""

from __future__ import annotations

import socket
from typing import Final

from pollers.system import REUSEPORT
from servers.lifecycle import CannotServe

BACKLOG: Final = 4096

#: How much one connection may hold in the server, bytes: one read, not yet written back.
CHUNK: Final = 65536


def bind(host: str, port: int, *, share: bool = False) -> socket.socket:
    """A non-blocking TCP socket bound to (host, port); port 0 lets the kernel choose.

    `share` lets other sockets bind the same port, for workers.  Raises CannotServe.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise CannotServe(
            f"no address for --host {host} --port {port}: {error}; "
            "give an address of this machine, or a name that resolves to one"
        ) from None
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise CannotServe(
            f"cannot bind {host}:{port}: {error.strerror}; "
            "choose another --host or --port (0 lets the kernel choose)"
        ) from None
    return sock


def listen(sock: socket.socket) -> None:
    """Begin to queue connections.  Raises CannotServe where another socket listens there."""
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {url(sock)}: {error.strerror}; choose another --port"
        ) from None


def url(sock: socket.socket, scheme: str = "tcp") -> str:
    """The URL of a bound socket, with brackets around an IPv6 host; http's has a path, "/"."""
    host, port = sock.getsockname()[:2]
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{scheme}://{authority}" + ("/" if scheme == "http" else "")
