"""A server is measured only when it has been seen to answer right.

What this file is
-----------------
Before a load begins, the server has to send back the right bytes: an echo server random messages
of many sizes, a file server the files of the load, whole and in part.  What it sends under load is
checked again by who loads it.  Everything here runs in Locust's process, on gevent.
"""

from __future__ import annotations

import http.client
import random
from typing import Any, Final

import gevent
from gevent import socket

from loadtest._server import ServerError
from loadtest._site import File, Site
from loadtest._sources import parse_url, resolve

VERIFY_TIMEOUT: Final = 10.0
#: Bytes of the echoes that are asked for before a load begins; some more are random.
SIZES: Final = (1, 2, 63, 64, 65, 1000, 4096, 65_537, 200_000)
#: Files of each size that are fetched whole, and those of which a part is fetched too; and the
#: bytes of each size after which it is enough.
WHOLE, PARTS, ENOUGH = 64, 8, 32 << 20


def verify_echo(url: str) -> None:
    """Have random messages of many sizes echoed.  Raises ServerError at the first wrong byte."""
    sizes = [*SIZES, *(random.randint(1, 100_000) for _ in range(4))]
    random.shuffle(sizes)
    with gevent.Timeout(VERIFY_TIMEOUT, False):
        try:
            with socket.create_connection(resolve(url)) as sock:
                for size in sizes:
                    _verify_one(sock, random.randbytes(size))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ServerError(f"{url} cannot be verified: {why}") from error
        return
    raise ServerError(f"{url} cannot be verified: no whole echo within {VERIFY_TIMEOUT:g} s")


def _verify_one(sock: Any, message: bytes) -> None:
    sender = gevent.spawn(sock.sendall, message)
    received = bytearray()
    try:
        while len(received) < len(message):
            data = sock.recv(65536)
            if not data:
                raise ServerError(
                    f"the server closed the connection after {len(received)} of {len(message)} "
                    "bytes: it does not echo"
                )
            received += data
        if received != message:
            raise ServerError(f"the server sent other bytes back than the {len(message)} it got")
    finally:
        sender.kill()


def verify_files(url: str, site: Site) -> None:
    """Fetch files of every size, whole and by a Range.  Raises ServerError at the first fault."""
    try:
        host, port = parse_url(url, "http")
        connection = http.client.HTTPConnection(host, port, timeout=VERIFY_TIMEOUT)
        try:
            for size, kind in zip(site.mix, site.kinds, strict=True):
                most = max(1, min(WHOLE, ENOUGH // size.size))
                for number, file in enumerate(random.sample(kind, min(most, len(kind)))):
                    _verify_whole(connection, file, site)
                    if number < PARTS:
                        _verify_part(connection, file, site)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ServerError(f"{url} cannot be verified: {why}") from error


def _verify_whole(connection: http.client.HTTPConnection, file: File, site: Site) -> None:
    connection.request("GET", f"/{file.path}")
    with connection.getresponse() as response:
        body = response.read()
        if response.status != 200:
            raise ServerError(
                f"the server answers /{file.path} with status {response.status}: it must serve "
                "what --file-root holds"
            )
        if not site.holds(file, body):
            raise ServerError(
                f"the server sent {len(body)} bytes for /{file.path}, and not the {file.size} "
                "that it holds"
            )


def _verify_part(connection: http.client.HTTPConnection, file: File, site: Site) -> None:
    first = random.randrange(file.size)
    last = random.randrange(first, file.size)
    asked = {"Range": f"bytes={first}-{last}"}
    connection.request("GET", f"/{file.path}", headers=asked)
    with connection.getresponse() as response:
        body = response.read()
        stated = response.headers.get("Content-Range")
        if response.status != 206 or stated != f"bytes {first}-{last}/{file.size}":
            raise ServerError(
                f"the server answers {asked['Range']} of /{file.path} with status "
                f"{response.status} and Content-Range {stated!r}"
            )
        if body != bytes(site.expected(file)[first : last + 1]):
            raise ServerError(f"the server sent wrong bytes for {asked['Range']} of /{file.path}")
