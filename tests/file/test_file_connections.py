"""Which bytes are a request, in what order they are answered, and when a connection ends.

Over one server of each loop; that the others answer alike is test_file_bodies.py's.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fileserving import (
    LOOPS,
    FileServer,
    Incoming,
    Response,
    content,
    exchange,
    get,
    request_bytes,
    reset,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rawrequests import GET, HIDDEN, HOST, SMUGGLING, asks, lines

pytestmark = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)

Start = Callable[..., FileServer]

#: (request, its method, the status and the content of its answer)
MIXED = [
    (asks("/1.bin"), "GET", 200, content(1)),
    (asks("/4097.bin"), "GET", 200, content(4097)),
    (asks("/4097.bin", "HEAD"), "HEAD", 200, b""),
    (asks("/65537.bin"), "GET", 200, content(65537)),
    (asks("/none"), "GET", 404, b"404 Not Found\n"),
    (asks("/none", "HEAD"), "HEAD", 404, b""),
    (asks("/0.bin"), "GET", 200, b""),
    (asks("/513.bin", Range="bytes=5-6"), "GET", 206, content(513)[5:7]),
    (asks("/513.bin", If_None_Match="*"), "GET", 304, b""),
    (asks("/1.bin", "OPTIONS"), "OPTIONS", 200, b""),
    (asks("/1.bin", "PATCH", Content_Length="3") + b"GET", "PATCH", 405, None),
    (asks("/1.bin", Content_Length=str(len(HIDDEN))) + HIDDEN, "GET", 200, content(1)),
    (b"\r\n" + asks("/511.bin", version="1.0", Connection="keep-alive"), "GET", 200, content(511)),
]


@contextmanager
def answers(server: FileServer, *sent: bytes) -> Iterator[Incoming]:
    """The answers to some bytes, sent one after the other."""
    with server.connect() as sock:
        for piece in sent:
            sock.sendall(piece)
        yield Incoming(sock)


def refused(server: FileServer, request: bytes) -> Response:
    """The one answer to a request that is none: it says that it is the last, and is."""
    with answers(server, request) as incoming:
        response = incoming.response()
        assert response.fields["connection"] == "close"
        incoming.end()
    return response


def test_keep_alive(server: FileServer) -> None:
    """As many requests as one likes, on one connection."""
    before = server.until(lambda line: line["open"] == 0)
    with server.connect() as sock:
        for i in range(100):
            size = (1, 513, 4096)[i % 3]
            response = get(sock, f"/{size}.bin")
            assert response.body == content(size)
            assert "connection" not in response.fields
        line = server.counters()
        assert line["requests"] - before["requests"] == 100
        assert line["accepted"] - before["accepted"] == 1
    server.until(lambda line: line["open"] == 0)


def test_pipelining_in_one_write(server: FileServer) -> None:
    chosen = [MIXED[i % len(MIXED)] for i in range(20)]
    with answers(server, b"".join(request for request, *_ in chosen)) as incoming:
        for request, method, status, body in chosen:
            response = incoming.response(method)
            assert response.status == status, request
            assert body is None or response.body == body, request
        incoming.nothing_more()


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_pipelining_in_any_pieces(server: FileServer, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(MIXED), min_size=1, max_size=12))
    stream = b"".join(request for request, *_ in chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a != b]
    with answers(server, *pieces) as incoming:
        for request, method, status, body in chosen:
            response = incoming.response(method)
            assert response.status == status, request
            assert body is None or response.body == body, request
        incoming.nothing_more()


def test_a_long_pipeline_leaves_the_others_their_turn(start: Start, tmp_path: Path) -> None:
    """Even where each answer is dear: a listing, whose content HEAD does not even send."""
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / str(number)).touch()
    server = start(tmp_path)
    count = 1000
    with server.connect() as greedy:
        greedy.sendall(asks("/many/", "HEAD") * count)
        assert greedy.recv(1)
        with server.connect() as other:
            assert get(other, "/many/0").status == 200
        assert server.counters()["requests"] < count
        reset(greedy)


def test_byte_by_byte(server: FileServer) -> None:
    """Each in a segment, and nothing is answered before the last one."""
    with server.connect() as sock:
        incoming = Incoming(sock)
        for _ in range(2):
            *first, last = asks("/513.bin", Range="bytes=-5")
            for byte in first:
                sock.sendall(bytes([byte]))
            incoming.nothing_more()
            sock.sendall(bytes([last]))
            assert incoming.response().body == content(513)[-5:]


@pytest.mark.parametrize("option", ["close", "Close", "x, close", "keep-alive, CLOSE", "close,"])
def test_connection_close(server: FileServer, option: str) -> None:
    """The answer says so as well; what came behind the request is not answered."""
    with answers(server, asks("/4097.bin", Connection=option) + HIDDEN) as incoming:
        response = incoming.response()
        assert (response.status, response.body) == (200, content(4097))
        assert response.fields["connection"] == "close"
        incoming.end()


def test_http_1_0(server: FileServer) -> None:
    """It closes unless it was asked not to, and then says that it does not; no Host needed."""
    with answers(server, b"GET /1.bin HTTP/1.0\r\n\r\n") as incoming:
        response = incoming.response()
        assert (response.status, response.body) == (200, content(1))
        assert response.head.startswith(b"HTTP/1.1 "), "the server's own version (RFC 9112 2.3)"
        assert response.fields["connection"] == "close"
        incoming.end()
    with server.connect() as sock:
        kept = asks("/1.bin", version="1.0", Connection="Keep-Alive")
        for _ in range(3):
            response = exchange(sock, kept)
            assert response.fields["connection"] == "keep-alive"
        assert get(sock, "/513.bin").body == content(513)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET", "OPTIONS"])
@pytest.mark.parametrize("size", [1, 100, 65536])
def test_body_is_no_request(server: FileServer, method: str, size: int) -> None:
    """A body that is short is skipped, however it comes, and the next request is the next."""
    body = (HIDDEN * (size // len(HIDDEN) + 1))[:size]
    head = asks("/1.bin", method, Content_Length=str(size))
    for sent in (
        [head + body + asks("/511.bin")],
        [head, body, asks("/511.bin")],
        [head + body[: size // 2], body[size // 2 :] + asks("/511.bin")],
    ):
        with answers(server, *sent) as incoming:
            assert incoming.response(method).status == {"GET": 200, "OPTIONS": 200}.get(
                method, 405
            )
            assert incoming.response().body == content(511)
            incoming.nothing_more()


def test_body_that_is_waited_for(server: FileServer) -> None:
    """The answer does not wait for it; the next request does."""
    with server.connect() as sock:
        response = exchange(sock, asks("/1.bin", Content_Length="1000"))
        assert response.body == content(1)
        sock.sendall(bytes(999))
        incoming = Incoming(sock)
        incoming.nothing_more()
        sock.sendall(b"x" + asks("/511.bin"))
        assert incoming.response().body == content(511)


@pytest.mark.parametrize(
    "request_",
    [
        asks("/1.bin", Content_Length="65537") + HIDDEN * 1000,
        asks("/1.bin", Content_Length=str(10**17)) + HIDDEN,
        asks("/1.bin", Transfer_Encoding="chunked") + b"5\r\nGET /\r\n0\r\n\r\n" + HIDDEN,
        asks("/1.bin", Transfer_Encoding="Chunked") + HIDDEN,
        asks("/1.bin", Content_Length="5", Expect="100-continue") + HIDDEN,
    ],
    ids=["long", "endless", "chunked", "Chunked", "continues"],
)
def test_body_that_is_not_read(server: FileServer, request_: bytes) -> None:
    """Answered, and the connection's last: nothing in the body is taken for a request."""
    response = refused(server, request_)
    assert (response.status, response.body) == (200, content(1))


def test_last_answer_survives_a_client_that_goes_on_sending(server: FileServer) -> None:
    """A close with bytes unread is a reset, which would destroy the answer on its way."""
    with server.connect() as sock:
        sock.sendall(asks("/65537.bin", "GET", Content_Length="500000"))
        sock.sendall(bytes(500_000))
        incoming = Incoming(sock)
        response = incoming.response()
        assert response.body == content(65537)
        incoming.end()


def test_expectations(server: FileServer) -> None:
    """100 (Continue) is never needed: the answer is known.  Any other expectation is 417."""
    with server.connect() as sock:
        assert exchange(sock, asks("/1.bin", Expect="100-continue")).status == 200
        assert (
            exchange(sock, asks("/1.bin", Expect="100-Continue", Content_Length="0")).status == 200
        )
        assert get(sock, "/1.bin").status == 200
    posted = refused(server, asks("/1.bin", "POST", Content_Length="3", Expect="100-continue"))
    assert posted.status == 405
    assert refused(server, asks("/1.bin", Expect="100-continue, 200-ok")).status == 417


def test_a_refused_head_has_no_content(server: FileServer) -> None:
    for bad in (asks("/%zz", "HEAD"), lines(b"HEAD / HTTP/1.1"), asks("/", "HEAD", Expect="x")):
        with server.connect() as sock:
            sock.sendall(bad)
            incoming = Incoming(sock)
            assert incoming.response("HEAD").status in (400, 417)
            incoming.end()


def test_smuggling(server: FileServer) -> None:
    """400 or 501, once, and the end: nothing of the request behind it is answered."""
    for bad in SMUGGLING:
        response = refused(server, bad + HIDDEN)
        assert response.status in (400, 501), bad


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asks("/" + "a" * 8192), 414),
        (b"GET /" + b"a" * 8300, 414),
        (b"A" * 9000, 414),
        (asks("/", X="y" * 16384), 431),
        (lines(GET, HOST, b"X: " + b"y" * 17000, end=b""), 431),
        (lines(GET, HOST, *(b"X-%d: y" % i for i in range(100))), 431),
        (lines(GET, HOST, *(b"X-%d: y" % i for i in range(102)), end=b""), 431),
        (lines(b"GET / HTTP/2.0", HOST), 505),
        (lines(b"GET / HTTP/0.9", HOST), 505),
        (lines(b"PRI * HTTP/2.0", b"", b"SM"), 505),
        (lines(b"PROPFIND / HTTP/1.1", HOST), 501),
        (asks("/", "PUT", Content_Length=str(10**18)), 413),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
def test_refusals(server: FileServer, request_: bytes, status: int) -> None:
    """As soon as they are certain: half of these heads never end."""
    assert refused(server, request_).status == status


def test_limits_are_what_they_say(server: FileServer) -> None:
    """One less is answered: a URI of 8192 bytes, 100 fields, a head of 16384 bytes."""
    with server.connect() as sock:
        assert get(sock, "/1.bin?".ljust(8192, "a")).body == content(1)
        fields = (b"X-%d: y" % i for i in range(99))
        assert exchange(sock, lines(b"GET /1.bin HTTP/1.1", HOST, *fields)).body == content(1)
        bare = request_bytes("/1.bin", fields={"X": ""})
        full = request_bytes("/1.bin", fields={"X": "y" * (16384 - len(bare))})
        assert len(full) == 16384
        assert exchange(sock, full).body == content(1)


def test_an_end_of_file_in_a_request(server: FileServer) -> None:
    """A request that is not whole is none: no answer, and no complaint."""
    whole = asks("/1.bin")
    cuts = random.Random(3).sample(range(1, len(whole)), 10)
    for cut in cuts:
        with answers(server, whole[:cut]) as incoming:
            incoming.sock.shutdown(socket.SHUT_WR)
            incoming.end()
    with answers(server, whole + whole[:20]) as incoming:
        incoming.sock.shutdown(socket.SHUT_WR)
        assert incoming.response().body == content(1)
        incoming.end()
