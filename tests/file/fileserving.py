"""`python -m servers.file` as a real process, and a client that believes nothing.

The client is a plain socket and a buffer, not an HTTP library: those forgive what a server gets
wrong.  Every answer must have the very form that RFC 9112 gives it, with Content-Length bytes of
content and none beyond.
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serverprocess import (
    DEADLINE,
    Combination,
    Line,
    ServerProcess,
    fill,
    killed_afterwards,
    quiet,
    read_exactly,
    require,
    reset,
    until,
)

import pollers

__all__ = [
    "BACKENDS",
    "COMBINATIONS",
    "DEADLINE",
    "LOOPS",
    "REACTORS",
    "Combination",
    "FileServer",
    "Incoming",
    "Line",
    "Response",
    "ask",
    "content",
    "exchange",
    "fill",
    "get",
    "quiet",
    "read_exactly",
    "request_bytes",
    "require",
    "reset",
    "serving_files",
    "until",
]

#: Every one that this project knows, whether it works here or not.
COMBINATIONS = [
    *(
        Combination("reactor", name, backend)
        for name in pollers.names()
        for backend in ("copy", "sendfile", "splice", "aio")
    ),
    *(Combination("asyncio", backend=backend) for backend in ("copy", "sendfile")),
    Combination("uvloop"),
    *(Combination("trio", backend=backend) for backend in ("copy", "sendfile", "splice")),
]
REACTORS = [each for each in COMBINATIONS if each.poller is not None]
#: The reactor with each of its backends, for what does not depend on its poller.
BACKENDS = [each for each in REACTORS if each.poller == REACTORS[0].poller]
#: One of each loop, for what does not depend on how bytes move.
LOOPS = [
    REACTORS[0],
    *(each for each in COMBINATIONS if not each.poller and each.backend == "copy"),
]

MIB = 1 << 20


class FileServer(ServerProcess):
    """One running file server."""

    def __init__(self, root: Path | str, *words: str, nofile: int | None = None) -> None:
        super().__init__("servers.file", "--root", str(root), *words, nofile=nofile)


@contextmanager
def serving_files(
    root: Path | str, *words: str, nofile: int | None = None
) -> Iterator[FileServer]:
    """A server that is killed at the end if it still runs."""
    with killed_afterwards(FileServer(root, *words, nofile=nofile)) as server:
        yield server


def content(size: int, seed: int = 0) -> bytes:
    """Bytes in which a lost, doubled or exchanged part shows."""
    return random.Random(f"{size} {seed}").randbytes(size)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, all of it."""

    status: int
    reason: str
    fields: dict[str, str]  # lower-case name -> value; no name comes twice
    body: bytes
    head: bytes  # status line to empty line, as they came


_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\x20-\x7e]*)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")

#: More than any head that a server of ours sends.
_LONGEST_HEAD = 65536


class Incoming:
    """Answers as they arrive on a blocking socket; what was read beyond one is kept for the next.

    A server that closes before an answer is whole, or sends what is none, fails an assertion.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()

    def response(self, method: str = "GET") -> Response:
        """The next answer, to a request of this method."""
        while (end := self.buffer.find(b"\r\n\r\n") + 4) < 4:
            assert len(self.buffer) < _LONGEST_HEAD, "a head without an end"
            self._more("in a head")
        head = bytes(self.buffer[:end])
        del self.buffer[:end]
        status_line, *lines = head[:-4].split(b"\r\n")
        found = _STATUS_LINE.fullmatch(status_line)
        assert found is not None, status_line
        status, reason = int(found[1]), found[2].decode()
        fields: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            assert field is not None, line
            name = field[1].decode().lower()
            assert name not in fields, f"{name} twice: {head!r}"
            fields[name] = field[2].decode()
        if status == 304 or status < 200 or status == 204:
            assert "content-length" not in fields, head
            length = 0
        else:  # nothing of ours is chunked, or goes on to the end of the connection
            assert "transfer-encoding" not in fields, head
            assert re.fullmatch("0|[1-9][0-9]*", fields.get("content-length", "")), head
            length = 0 if method == "HEAD" else int(fields["content-length"])
        return Response(status, reason, fields, self.take(length), head)

    def take(self, count: int) -> bytes:
        """The next `count` bytes, whatever they are."""
        if count <= len(self.buffer):
            taken = bytes(self.buffer[:count])
            del self.buffer[:count]
            return taken
        body, self.buffer = self.buffer, bytearray()
        have = len(body)
        body.extend(bytes(count - have))
        with memoryview(body) as room:
            while have < count:
                got = self.sock.recv_into(room[have:])
                assert got, f"end of file after {have} of {count} bytes"
                have += got
        return bytes(body)

    def nothing_more(self) -> None:
        """Nothing came behind the last answer, so far."""
        assert not self.buffer, bytes(self.buffer[:200])
        self.sock.setblocking(False)
        try:
            data = self.sock.recv(200)
        except BlockingIOError:
            return
        finally:
            self.sock.settimeout(DEADLINE)
        raise AssertionError(f"behind the answer came {data!r}")

    def end(self) -> None:
        """The server has closed the connection, properly, and nothing came before that."""
        assert not self.buffer, bytes(self.buffer[:200])
        data = self.sock.recv(200)
        assert not data, data

    def _more(self, where: str) -> None:
        data = self.sock.recv(65536)
        assert data, f"end of file {where}, after {bytes(self.buffer)!r}"
        self.buffer += data


def request_bytes(
    target: str, method: str = "GET", fields: dict[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """A request without a body.  A Host goes first, unless `fields` has one."""
    given = {"Host": "localhost"} | (fields or {})
    lines = [f"{method} {target} HTTP/{version}", *(f"{n}: {v}" for n, v in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def exchange(sock: socket.socket, request: bytes, method: str = "GET") -> Response:
    """Send a request; return its answer, behind which nothing may come."""
    sock.sendall(request)
    incoming = Incoming(sock)
    response = incoming.response(method)
    assert not incoming.buffer, bytes(incoming.buffer[:200])
    return response


def get(sock: socket.socket, target: str, method: str = "GET", **fields: str) -> Response:
    """Ask on a connection that is kept; `if_none_match="..."` becomes If-None-Match."""
    named = {name.replace("_", "-").title(): value for name, value in fields.items()}
    return exchange(sock, request_bytes(target, method, named), method)


def ask(server: FileServer, target: str, method: str = "GET", **fields: str) -> Response:
    """Ask on a connection of its own."""
    with server.connect() as sock:
        return get(sock, target, method, **fields)


#: The sizes at whose borders something changes: an empty body, a disk sector, a page, the most
#: that is read at once, more than a socket's buffer takes.
SIZES = (
    *(0, 1, 511, 512, 513, 4095, 4096, 4097),
    *(65535, 65536, 65537, MIB + 3),
)
#: A file with holes beyond 2**32, and where it has data: (offset, how many bytes).
SPARSE = 5 << 30
ISLANDS = (
    *((0, 5000), (12345, 513), ((1 << 31) - 700, 1400), ((1 << 32) - 4097, 8195)),
    *((3_333_333_333, 65537), (SPARSE - 1000, 1000)),
)
#: Long ago, so that every Last-Modified is a strong validator.
AGES_AGO = 1_000_000_000


def island(offset: int, count: int) -> bytes:
    """The bytes of the sparse file that its range has."""
    found = bytearray(count)
    for start, size in ISLANDS:
        first, last = max(offset, start), min(offset + count, start + size)
        if first < last:
            found[first - offset : last - offset] = content(size, start)[
                first - start : last - start
            ]
    return bytes(found)


def build(root: Path) -> None:
    """Make a document root with a file of everything that the tests ask for."""
    for size in SIZES:
        (root / f"{size}.bin").write_bytes(content(size))
    with open(root / "sparse.bin", "wb") as sparse:
        sparse.truncate(SPARSE)
        for offset, size in ISLANDS:
            os.pwrite(sparse.fileno(), content(size, offset), offset)
    (root / "index.html").write_bytes(b"<!DOCTYPE html><title>root</title>\n")
    (root / "page.html").write_bytes(b"<!DOCTYPE html><title>page</title>\n")
    (root / "text.txt").write_bytes(b"as it is\n" * 100)
    (root / "text.txt.gz").write_bytes(b"not really gzip")
    (root / "text.txt.br").write_bytes(b"not really brotli")
    (root / "text.txt.zst").write_bytes(b"not really zstd")
    (root / "only.css").write_bytes(b"body{}\n")
    (root / "only.css.gz").write_bytes(b"gzip, say")
    (root / "with index").mkdir()
    (root / "with index" / "index.html").write_bytes(b"<!DOCTYPE html><title>index</title>\n")
    (root / "listed").mkdir()
    (root / "listed" / "a&b <c>.txt").write_bytes(b"markup\n")
    (root / "listed" / "%41.txt").write_bytes(b"percent\n")
    (root / "listed" / "sub").mkdir()
    (root / "listed" / "zeta").write_bytes(bytes(1536))
    (root / "deep" / "er" / "and" / "deeper").mkdir(parents=True)
    (root / "deep" / "er" / "and" / "deeper" / "leaf.json").write_bytes(b"{}\n")
    for path, directories, files in os.walk(root):
        for name in (*directories, *files):
            os.utime(os.path.join(path, name), (AGES_AGO, AGES_AGO))
