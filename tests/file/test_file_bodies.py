"""Every byte of a body, and none beside: sizes, ranges, holes, slow readers; and that no client
can tell the servers apart.

Over every loop, poller and backend, one server of each for all of it.
"""

from __future__ import annotations

import random
import re
import select
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from fileserving import (
    AGES_AGO,
    COMBINATIONS,
    DEADLINE,
    MIB,
    REACTORS,
    SIZES,
    SPARSE,
    Combination,
    FileServer,
    Incoming,
    Response,
    content,
    get,
    island,
    request_bytes,
    serving_files,
)
from rawrequests import RAW

from servers.http.dates import format_date

BIG = MIB + 3

#: Those that hand a count to sendfile(2); its poller changes nothing there.
LARGE = [f"{REACTORS[0].poller}-sendfile", "asyncio-sendfile"]

#: Where one read ends and another begins: sectors, pages, reads, moves.
BORDERS = (512, 4096, 32768, 65536, 262144, 524288, MIB)


@pytest.fixture(scope="module")
def big() -> bytes:
    return content(BIG)


def ranged(sock: socket.socket, name: str, spec: str) -> Response:
    return get(sock, f"/{name}", range=f"bytes={spec}")


def parts(response: Response) -> list[tuple[int, bytes]]:
    """The (offset, bytes) of each part of a multipart/byteranges answer, taken strictly."""
    found = re.fullmatch(
        "multipart/byteranges; boundary=([0-9a-f]{8,70})", response.fields["content-type"]
    )
    assert found is not None, response.fields
    assert "content-range" not in response.fields
    boundary = found[1].encode()
    left, pieces = response.body, []
    lead = b""
    while not left.startswith(end := lead + b"--" + boundary + b"--\r\n"):
        head = re.match(
            lead + b"--" + boundary + b"\r\nContent-Type: application/octet-stream\r\n"
            rb"Content-Range: bytes (\d+)-(\d+)/(\d+)\r\n\r\n",
            left,
        )
        assert head is not None, left[:300]
        first, last = int(head[1]), int(head[2])
        pieces.append((first, left[head.end() :][: last + 1 - first]))
        left = left[head.end() + last + 1 - first :]
        lead = b"\r\n"
    assert left == end
    return pieces


def test_ready_line(combination: Combination, server: FileServer) -> None:
    ready = server.ready
    assert (ready["server"], ready["loop"]) == ("file", combination.loop)
    assert (ready["pid"], ready["pids"], ready["workers"]) == (server.pid, [server.pid], 1)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", ready["url"])
    assert ready["backend"] == combination.backend
    assert ready["watcher"] in ("inotify", "none")
    if combination.poller is not None:
        assert ready["poller"] == combination.poller
    else:
        assert isinstance(ready["poller"], str)


def test_sizes(server: FileServer) -> None:
    """Each twice, as the second answer comes from the memo; and HEAD says the same of each."""
    with server.connect() as sock:
        for size in SIZES:
            response = get(sock, f"/{size}.bin")
            assert (response.status, response.reason) == (200, "OK")
            assert response.body == content(size), size
            assert response.fields["content-length"] == str(size)
            assert response.fields["last-modified"] == format_date(AGES_AGO).decode()
            again = get(sock, f"/{size}.bin")
            assert again.body == response.body
            silent = get(sock, f"/{size}.bin", "HEAD")
            for other in (again, silent):
                assert {**other.fields, "date": ""} == {**response.fields, "date": ""}
            assert not silent.body


def test_single_ranges(server: FileServer, big: bytes) -> None:
    """Around every border, the ends, and anywhere."""
    chosen = random.Random(14)
    wanted = [(0, 0), (0, BIG - 1), (BIG - 1, BIG - 1), (BIG - 2, BIG - 1), (1, BIG - 2)]
    for border in BORDERS:
        wanted += [(border - 1, border), (border, border), (0, border - 1), (1, border)]
        wanted += [(border - 513, border + 4097), (border + 1, border + 1)]
    for _ in range(20):
        first = chosen.randrange(BIG)
        wanted.append((first, min(BIG - 1, first + chosen.randrange(1 << chosen.randrange(20)))))
    with server.connect() as sock:
        for first, last in wanted:
            first, last = max(first, 0), min(last, BIG - 1)
            response = ranged(sock, f"{BIG}.bin", f"{first}-{last}")
            assert response.status == 206
            assert response.fields["content-range"] == f"bytes {first}-{last}/{BIG}"
            assert response.body == big[first : last + 1], (first, last)


@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [
        ("-1", BIG - 1, BIG - 1),
        ("-70000", BIG - 70000, BIG - 1),
        (f"-{BIG + 10}", 0, BIG - 1),
        ("1048000-", 1048000, BIG - 1),
        ("0-", 0, BIG - 1),
        (f"5-{10**30}", 5, BIG - 1),
        (" 7-8 ", 7, 8),
    ],
)
def test_open_ranges(server: FileServer, big: bytes, spec: str, first: int, last: int) -> None:
    with server.connect() as sock:
        response = ranged(sock, f"{BIG}.bin", spec)
        assert response.status == 206
        assert response.fields["content-range"] == f"bytes {first}-{last}/{BIG}"
        assert response.body == big[first : last + 1]


def test_ranges_that_cannot_be(server: FileServer) -> None:
    """416 with the size; of an empty file too; and the connection goes on."""
    with server.connect() as sock:
        for name, size, spec in [
            (f"{BIG}.bin", BIG, f"{BIG}-"),
            (f"{BIG}.bin", BIG, f"{BIG}-{BIG + 1}, {10**40}-"),
            (f"{BIG}.bin", BIG, "-0"),
            ("0.bin", 0, "0-"),
            ("0.bin", 0, "0-0"),
        ]:
            response = ranged(sock, name, spec)
            assert response.status == 416, spec
            assert response.fields["content-range"] == f"bytes */{size}"
        assert get(sock, "/1.bin").body == content(1)


@pytest.mark.parametrize(
    "spec", ["", "x", "1-0", "1", "--1", "0-1;2-3", "0-1, x", "0x1-2", "0-,-x"]
)
def test_ranges_that_are_none_are_ignored(server: FileServer, spec: str) -> None:
    with server.connect() as sock:
        response = ranged(sock, "513.bin", spec)
        assert (response.status, response.body) == (200, content(513))


def test_several_ranges(server: FileServer, big: bytes) -> None:
    """In the order asked for, each byte once, never more than the file; 17 are ignored."""
    chosen = random.Random(15)
    with server.connect() as sock:
        response = ranged(sock, f"{BIG}.bin", f"{MIB}-, 0-0,511-512, 70000-400000")
        assert response.status == 206
        assert parts(response) == [
            (offset, big[offset:stop])
            for offset, stop in [(MIB, BIG), (0, 1), (511, 513), (70000, 400001)]
        ]
        overlapping = ranged(sock, f"{BIG}.bin", "100-200,50-149,201-300,1000-1000")
        assert parts(overlapping) == [(50, big[50:301]), (1000, big[1000:1001])]
        single = ranged(sock, f"{BIG}.bin", "0-99,100-199")  # they touch
        assert single.fields["content-range"] == f"bytes 0-199/{BIG}"
        assert single.body == big[:200]
        for _ in range(5):
            starts = [65536 * i + chosen.randrange(20000) for i in range(16)]
            chosen.shuffle(starts)
            wanted = [(start, start + chosen.randrange(1, 40000)) for start in starts]
            response = ranged(
                sock, f"{BIG}.bin", ",".join(f"{start}-{stop - 1}" for start, stop in wanted)
            )
            assert parts(response) == [(start, big[start:stop]) for start, stop in wanted]
        many = ",".join(f"{10 * i}-{10 * i}" for i in range(17))
        assert ranged(sock, f"{BIG}.bin", many).status == 200


def test_holes_and_offsets_beyond_32_bits(server: FileServer) -> None:
    """A file of 5 GiB that is mostly holes, at unaligned heads and tails."""
    wanted = [(0, 100), (12000, 2000), (SPARSE - 1, 1), (SPARSE - 1001, 1001), (4 << 30, 0)]
    for border in (1 << 31, 1 << 32, 3_333_333_333, SPARSE - 4096):
        wanted += [(border - 1, 2), (border - 513, 1024), (border - 5000, 10001), (border, 4096)]
    wanted += [((1 << 32) - MIB, 2 * MIB + 1), (1 << 31, MIB), (3_333_333_000, 3 * 65536)]
    with server.connect() as sock:
        for first, count in wanted:
            count = min(max(count, 1), SPARSE - first)
            response = ranged(sock, "sparse.bin", f"{first}-{first + count - 1}")
            assert response.fields["content-range"] == (
                f"bytes {first}-{first + count - 1}/{SPARSE}"
            )
            assert response.body == island(first, count), (first, count)
        spec = f"{(1 << 32) - 100}-{1 << 32},0-9,{SPARSE - 5}-,{(1 << 31) - 7}-{1 << 31}"
        assert parts(ranged(sock, "sparse.bin", spec)) == [
            (first, island(first, count))
            for first, count in [
                *(((1 << 32) - 100, 101), (0, 10)),
                *((SPARSE - 5, 5), ((1 << 31) - 7, 8)),
            ]
        ]
        silent = get(sock, "/sparse.bin", "HEAD")
        assert silent.fields["content-length"] == str(SPARSE)


@pytest.mark.parametrize(
    "combination",
    [each for each in COMBINATIONS if str(each) in LARGE],
    ids=str,
    indirect=True,
)
def test_more_than_32_bits_at_once(server: FileServer) -> None:
    """More than one sendfile(2) takes, and than an int holds."""
    first, last = (1 << 31) - MIB + 5, (1 << 32) + 7
    left, memory = last + 1 - first, bytearray(4 * MIB)
    with server.connect() as sock:
        sock.sendall(request_bytes("/sparse.bin", fields={"Range": f"bytes={first}-{last}"}))
        incoming = Incoming(sock)
        response = incoming.response("HEAD")  # the content is too much to keep
        assert response.fields["content-length"] == str(left)
        begin = len(incoming.buffer)
        assert incoming.take(begin) == island(first, begin)
        left -= begin
        while left > MIB:
            count = sock.recv_into(memory, min(len(memory), left - MIB))
            assert count, f"end of file {left} bytes too early"
            left -= count
        assert incoming.take(MIB) == island(last + 1 - MIB, MIB)
        incoming.nothing_more()


def test_slow_reader(server: FileServer, big: bytes) -> None:
    """It takes a byte and then little at a time, from small buffers; others do not wait for it."""
    chosen = random.Random(16)
    with server.connect(receive_buffer=4096, segment=1400) as slow, server.connect() as quick:
        before = server.counters()
        slow.sendall(request_bytes(f"/{BIG}.bin") + request_bytes("/513.bin"))
        incoming = Incoming(slow)
        server.until(lambda line: line["stalls"] > before["stalls"])
        for _ in range(3):
            assert get(quick, f"/{BIG}.bin").body == big
        received = bytearray()
        while len(received) < BIG + 513:
            data = slow.recv(chosen.choice((1, 100, 1000, 5000, 20000)))
            assert data
            received += data
        incoming.buffer = received
        while not received.endswith(content(513)):
            data = slow.recv(65536)
            assert data
            received += data
        assert incoming.response().body == big
        assert incoming.response().body == content(513)
        assert not incoming.buffer


def test_several_at_once(server: FileServer, big: bytes) -> None:
    """24 transfers, each of another range, as each of their readers gets on."""
    chosen = random.Random(17)
    poll = select.poll()
    with ExitStack() as stack:
        left: dict[int, tuple[Incoming, int, int]] = {}
        for i in range(24):
            sock = stack.enter_context(server.connect(receive_buffer=16384))
            start = chosen.randrange(MIB // 2)
            stop = chosen.randrange(start + 1, BIG)
            given = {"Range": f"bytes={start}-{stop - 1}"}
            sock.sendall(request_bytes(f"/{BIG}.bin?{i}", fields=given))
            poll.register(sock, select.POLLIN)
            left[sock.fileno()] = (Incoming(sock), start, stop)
        while left:
            ready = poll.poll(DEADLINE * 1000)
            assert ready, f"nothing more for {len(left)} readers"
            for fd, _ in ready:
                incoming, start, stop = left[fd]
                data = incoming.sock.recv(30000)
                assert data
                incoming.buffer += data
                head = incoming.buffer.find(b"\r\n\r\n", 0, 1000) + 4
                if len(incoming.buffer) - head == stop - start:
                    assert incoming.response().body == big[start:stop]
                    incoming.nothing_more()
                    poll.unregister(fd)
                    del left[fd]


def test_pipelined_bodies(server: FileServer, big: bytes) -> None:
    """More than a socket takes, several times, asked for at once: one after the other."""
    names = [BIG, 0, 65537, BIG, 4097, 1]
    with server.connect() as sock:
        sock.sendall(b"".join(request_bytes(f"/{size}.bin") for size in names))
        incoming = Incoming(sock)
        for size in names:
            assert incoming.response().body == content(size)
        incoming.nothing_more()


# -- the same answers, byte for byte


def raw_answer(server: FileServer, request: bytes) -> bytes:
    """All that comes back for these bytes and an end of file, but for what Date says."""
    with server.connect() as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        received = bytearray()
        while data := sock.recv(1 << 20):
            received += data
    return re.sub(rb"(?<=\r\nDate: )[^\r]+ GMT(?=\r\n)", b"", bytes(received))


@pytest.fixture(scope="module")
def reference(root: Path) -> list[bytes]:
    """What the reactor on its first poller with copies answers."""
    with serving_files(root, *REACTORS[0].words) as server:
        answers = [raw_answer(server, request) for request in RAW]
        again = [raw_answer(server, request) for request in RAW]
    assert again == answers, "the memo changes what is answered"
    return answers


def test_same_answers(server: FileServer, reference: list[bytes]) -> None:
    """To each of a list of good and bad requests, from the first byte to the end of file."""
    for request, expected in zip(RAW, reference, strict=True):
        assert raw_answer(server, request) == expected, request
