"""Source addresses, so that one machine has ports enough.

Facts
-----
*   A TCP connection is (source, port, destination, port).  Towards one server one source address
    has as many connections as there are ephemeral ports: 28,232 by default on Linux, and those
    in TIME_WAIT count for a minute.
*   All of 127.0.0.0/8 is local on Linux; elsewhere each address needs an alias on the loopback
    interface.  So they are found by binding, not by the name of the system.
*   bind(2) with port 0 takes a port at once, from a range shared by all destinations.
    IP_BIND_ADDRESS_NO_PORT (Linux 4.2, ip(7)) leaves that to connect(2).  It is probed too: after
    such a bind the port must still be 0.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from typing import Final

#: Sources that are spread over: 16 * 28,232 ports.
COUNT: Final = 16
#: Not in CPython before 3.12 on every build; the number is Linux's, hence the probe.
IP_BIND_ADDRESS_NO_PORT: Final[int] = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)


def parse_url(url: str, scheme: str = "tcp") -> tuple[str, int]:
    """Host and port of scheme://host:port.  Raises ValueError with one line."""
    given, _, rest = url.strip().rstrip("/").partition("://")
    host, _, port = rest.rpartition(":")
    if given != scheme or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"{url!r} is not the address of a server: give it as {scheme}://host:port"
        )
    return host, int(port)


def resolve(url: str, scheme: str = "tcp") -> tuple[str, int]:
    """The IPv4 address and port of scheme://host:port, looked up once.  Raises ValueError."""
    host, port = parse_url(url, scheme)
    try:
        return socket.gethostbyname(host), port
    except OSError as error:
        raise ValueError(f"{url!r}: no IPv4 address is known for {host}: {error}") from error


class Sources:
    """Binds sockets to local addresses in turn, where the destination is this machine."""

    def __init__(self, destination: str) -> None:
        self.addresses: list[str] = []
        self.late_port = False
        if _is_loopback(destination):
            candidates = [f"127.0.0.{n}" for n in range(2, 2 + COUNT)]
            self.addresses = [address for address in candidates if _can_bind(address)]
            self.late_port = bool(self.addresses) and _port_waits(self.addresses[0])
        self._turn = itertools.cycle(self.addresses or [""])

    def bind(self, sock: socket.socket) -> None:
        """Bind an unconnected IPv4 socket to the next address.  Raises OSError."""
        address = next(self._turn)
        if not address:
            return
        if self.late_port:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((address, 0))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network("127.0.0.0/8")
    except ValueError:
        return False


def _can_bind(address: str) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((address, 0))
        except OSError:  # EADDRNOTAVAIL: no alias on the loopback interface
            return False
    return True


def _port_waits(address: str) -> bool:
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((address, 0))
        except OSError:
            return False
        return bool(sock.getsockname()[1] == 0)
