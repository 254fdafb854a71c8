"""Files that change, shrink, break or are none, while they are served or just before.

Facts
-----
*   A file that shrinks under a transfer leaves its Content-Length unkept.  Only the end of the
    connection can say so: not zeros in its place, and not silence.
*   sendfile(2) and splice(2) hand pages to the socket, not copies.  truncate(2) zeroes what lies
    behind the new end in the folio that the end lies in (up to 2 MiB on ext4 and XFS of today),
    also while a socket holds it; whole folios behind it are cut off and keep their bytes.  No
    server can help that: what it has handed over may turn into zeros, and it ends the connection
    before the Content-Length is reached.  Backends that copy send nothing but the file's bytes.
*   An inode lives as long as somebody has it open: a file that was replaced by rename(2) is sent
    to its end as it was.
*   open(2) of a FIFO blocks, of a device may do things, of a socket fails.  None is served.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from fileserving import (
    BACKENDS,
    COMBINATIONS,
    Combination,
    FileServer,
    Incoming,
    content,
    exchange,
    get,
    request_bytes,
    until,
)

MIB = 1 << 20
SIZE = 8 * MIB
PAGE = 4096
#: See test_file_faults_peers.py.
SEGMENT = 1460

#: Every backend once, on every loop that has it.
CHOSEN = [*BACKENDS, *(each for each in COMBINATIONS if each.poller is None)]

#: Seconds after which a connection that ought to end, or an answer that ought to come, is late.
SOON = 5.0

#: The same bytes are wanted again and again.
known = functools.cache(content)

pytestmark = pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of this module's own, whose files its tests change."""
    directory = tmp_path_factory.mktemp("files")
    (directory / "steady").write_bytes(b"steady\n")  # backend aio looks at one file at its start
    return directory


def slow(server: FileServer) -> socket.socket:
    """A connection for which the server cannot write much ahead."""
    sock = server.connect(receive_buffer=16384, segment=SEGMENT)
    sock.settimeout(SOON)
    return sock


def to_the_end(sock: socket.socket) -> bytes:
    """All that still comes on a connection that is about to end, with FIN or RST."""
    received = bytearray()
    try:
        while data := sock.recv(MIB):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def assert_bytes_of(wanted: bytes, body: bytes, left: int, *, pages: bool) -> None:
    """`body` is the beginning of `wanted`, of which truncate(2) has left `left` bytes.

    With `pages`, those behind may have become zeros: the end of one folio, or of none at 0.
    """
    if pages and left:
        behind = zip(body[left:], wanted[left:], strict=False)
        assert all(is_byte in (0, was_byte) for is_byte, was_byte in behind)
        body = body[:left]
    assert body == wanted[: len(body)]


def deleted(server: FileServer) -> list[str]:
    """Files that the server holds open and that have no name any more."""
    found = []
    for fd in os.listdir(f"/proc/{server.pid}/fd"):
        try:
            name = os.readlink(f"/proc/{server.pid}/fd/{fd}")
        except FileNotFoundError:  # closed meanwhile
            continue
        if name.endswith(" (deleted)") and "/files" in name:
            found.append(name)
    return found


def test_truncated_while_sent(combination: Combination, server: FileServer, root: Path) -> None:
    """The connection ends soon, and what came are bytes that the file had."""
    wanted = known(SIZE)
    for left in (0, 16 * PAGE, 64 * PAGE + 1):
        (root / "file").write_bytes(wanted)
        with slow(server) as sock:
            sock.sendall(request_bytes("/file"))
            received = Incoming(sock).take(65536)
            os.truncate(root / "file", left)
            received += to_the_end(sock)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"\r\nContent-Length: {SIZE}\r\n".encode() in head + b"\r\n"
        assert len(body) < SIZE
        assert_bytes_of(wanted, body, left, pages=combination.backend in ("sendfile", "splice"))
        with server.connect() as sock:
            assert get(sock, "/file").body == wanted[:left]
    server.until(lambda line: line["open"] == 0)


def test_truncated_in_a_later_range(server: FileServer, root: Path) -> None:
    """The same inside a multipart answer, where bytes of ours would follow."""
    wanted = known(SIZE)
    (root / "file").write_bytes(wanted)
    with slow(server) as sock:
        fields = {"Range": f"bytes=0-{SIZE // 2 - 1},{SIZE // 2 + 1}-{SIZE - 1}"}
        sock.sendall(request_bytes("/file", fields=fields))
        incoming = Incoming(sock)
        received = incoming.take(65536)
        os.truncate(root / "file", SIZE // 2)
        received += to_the_end(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    part = body.partition(b"\r\n\r\n")[2]
    first = part[: SIZE // 2]
    assert first == wanted[: len(first)]
    behind = part[SIZE // 2 :]  # the head of the second part may have gone already
    assert len(behind) < 300
    assert b"\0" not in behind
    server.until(lambda line: line["open"] == 0)


def test_truncated_just_before_it_is_sent(start: Callable[..., FileServer], root: Path) -> None:
    """What is remembered of a file may be a second old: then the answer ends early, no worse."""
    wanted = known(SIZE)
    cases = {
        "shorter": (SIZE, 16 * PAGE),
        "small": (8 * PAGE, PAGE),
        "emptied": (8 * PAGE, 0),
        "tiny": (100, 0),
    }
    for name, (size, _) in cases.items():
        (root / name).write_bytes(wanted[:size])
    server = start(root, "--watcher", "none")
    for name, (size, left) in cases.items():
        with server.connect() as sock:
            sock.settimeout(SOON)
            assert get(sock, f"/{name}").body == wanted[:size]
            os.truncate(root / name, left)
            sock.sendall(request_bytes(f"/{name}") + request_bytes("/steady"))
            received = b""
            while not received.endswith(b"steady\n") and (data := to_some(sock)):
                received += data
        body = received.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1 200 OK\r\n")[0]
        assert body == wanted[: len(body)]
        assert len(body) <= left
    for name, (_, left) in cases.items():
        until(partial(is_served, server, name, wanted[:left]), SOON)
    server.terminate()
    server.ends()


def is_served(server: FileServer, name: str, wanted: bytes) -> bool:
    """Whether a new connection gets these bytes, and no answer that is cut short."""
    with server.connect() as sock:
        sock.sendall(request_bytes(f"/{name}", fields={"Connection": "close"}))
        head, _, body = to_the_end(sock).partition(b"\r\n\r\n")
    said = b"\r\nContent-Length: %d\r\n" % len(wanted)
    return said in head + b"\r\n" and body == wanted


def to_some(sock: socket.socket) -> bytes:
    """What comes next; nothing where the connection ends."""
    try:
        return sock.recv(MIB)
    except ConnectionResetError:
        return b""


def test_grown_while_sent(server: FileServer, root: Path) -> None:
    """Content-Length bytes, not one more, and the connection goes on."""
    wanted = known(SIZE)
    (root / "file").write_bytes(wanted)
    with slow(server) as sock:
        incoming = Incoming(sock)
        sock.sendall(request_bytes("/file") + request_bytes("/steady"))
        until(lambda: bool(sock.recv(1, socket.MSG_PEEK)))
        with open(root / "file", "ab") as file:
            file.write(b"more than was promised")
        assert incoming.response().body == wanted
        assert incoming.response().body == b"steady\n"
        incoming.nothing_more()
    with server.connect() as sock:
        assert get(sock, "/file").body == wanted + b"more than was promised"


def test_replaced_while_sent(server: FileServer, root: Path) -> None:
    """The old inode comes whole, the next answer is the new file's, and the old one is let go."""
    old, new = known(SIZE, 1), known(SIZE, 2)
    (root / "file").write_bytes(old)
    with slow(server) as sock, server.connect() as other:
        incoming = Incoming(sock)
        sock.sendall(request_bytes("/file") + request_bytes("/file"))
        until(lambda: bool(sock.recv(1, socket.MSG_PEEK)))
        (root / "file.new").write_bytes(new)
        os.replace(root / "file.new", root / "file")
        meanwhile = get(other, "/file")
        first, second = incoming.response(), incoming.response()
        assert first.body == old
        assert meanwhile.body == second.body == new
        assert meanwhile.fields["etag"] == second.fields["etag"] != first.fields["etag"]
        assert get(other, "/file", "HEAD", if_none_match=first.fields["etag"]).status == 200
        until(lambda: not deleted(server), SOON)


def test_removed_while_sent(server: FileServer, root: Path) -> None:
    """A name that goes away takes nothing from who has the file already."""
    wanted = known(SIZE)
    (root / "file").write_bytes(wanted)
    with slow(server) as sock, server.connect() as other:
        incoming = Incoming(sock)
        sock.sendall(request_bytes("/file"))
        until(lambda: bool(sock.recv(1, socket.MSG_PEEK)))
        (root / "file").unlink()
        assert get(other, "/file").status == 404
        assert incoming.response().body == wanted
        assert get(other, "/file").status == 404
        until(lambda: not deleted(server), SOON)


def test_special_files(server: FileServer, root: Path) -> None:
    """FIFO, socket, device: each a 404 at once, whatever it is asked for as."""
    special = root / "special"
    if not special.exists():
        special.mkdir()
        os.mkfifo(special / "fifo")
        with socket.socket(socket.AF_UNIX) as sock:
            here = os.open(special, os.O_RDONLY)  # a path of a socket has 108 bytes
            try:
                sock.bind(f"/proc/self/fd/{here}/socket")
            finally:
                os.close(here)
        for name, minor in (("null", 3), ("zero", 5)):
            with suppress(PermissionError):  # only root may
                os.mknod(special / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (special / "link").symlink_to("fifo")
        (special / "index.html").symlink_to("fifo")
        (special / "plain.txt").write_bytes(b"plain\n")
        os.mkfifo(special / "plain.txt.gz")
    with server.connect() as sock:
        sock.settimeout(SOON)
        for name in ("fifo", "socket", "null", "zero", "link", "index.html", "fifo/", "fifo/x"):
            for method in ("GET", "HEAD"):
                response = get(sock, f"/special/{name}", method)
                assert response.status == 404, (name, method)
                assert get(sock, f"/special/{name}", method, range="bytes=0-9").status == 404
        assert get(sock, "/special/plain.txt", accept_encoding="gzip, br").body == b"plain\n"
        listing = get(sock, "/special/")
        assert listing.status == 200
        listed = re.findall(rb'href="([^"]*)"', listing.body)
        assert listed == [b"../", b"plain.txt"]
        assert get(sock, "/steady").body == b"steady\n"


def test_became_a_fifo(server: FileServer, root: Path) -> None:
    """A file that was served, and is replaced by something else of that name."""
    with server.connect() as sock:
        sock.settimeout(SOON)
        for other in (os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)):
            (root / "turns").write_bytes(b"a file still\n")
            assert get(sock, "/turns").body == b"a file still\n"
            other(root / "turns.other")
            (root / "turns").unlink()
            os.rename(root / "turns.other", root / "turns")
            assert get(sock, "/turns").status == (301 if (root / "turns").is_dir() else 404)
            if (root / "turns").is_dir():
                (root / "turns").rmdir()
            else:
                (root / "turns").unlink()
            assert get(sock, "/turns").status == 404


def test_as_quick_as_a_client_can_be(server: FileServer, root: Path) -> None:
    """What was changed before a request was sent is never answered as it was: 100 times."""
    with server.connect() as sock:
        for i in range(100):
            version = b"version %d\n" % i
            (root / "quick.new").write_bytes(version)
            os.replace(root / "quick.new", root / "quick")
            assert exchange(sock, request_bytes("/quick")).body == version
            assert exchange(sock, request_bytes("/quick")).body == version
