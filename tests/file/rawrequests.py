"""Bytes that a client may send, good and bad: what every server has to answer alike.

They ask for what `fileserving.build` makes, and for the time that its files have.
"""

from __future__ import annotations

from fileserving import AGES_AGO, MIB, request_bytes

from servers.http.dates import format_date

MODIFIED = format_date(AGES_AGO).decode()
BEFORE = format_date(AGES_AGO - 1).decode()


def asks(target: str, method: str = "GET", version: str = "1.1", **fields: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return request_bytes(target, method, named, version)


def lines(*parts: bytes, end: bytes = b"\r\n\r\n") -> bytes:
    return b"\r\n".join(parts) + end


GET = b"GET / HTTP/1.1"
HOST = b"Host: localhost"
#: What a smuggled request would ask for: nothing of it may ever be answered.
HIDDEN = lines(b"GET /1.bin HTTP/1.1", HOST)

#: Requests after which nobody can be sure where the next one begins: 400 or 501, and close.
SMUGGLING = (
    lines(b"POST / HTTP/1.1", HOST, b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    lines(b"GET / HTTP/1.1", HOST, b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    lines(GET, HOST, b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    lines(GET, HOST, b"Content-Length: 5", b"Content-Length: 6"),
    lines(GET, HOST, b"Content-Length: 5", b"Content-Length: 5"),
    lines(GET, HOST, b"Content-Length: 5, 5"),
    lines(GET, HOST, b"Content-Length: +5"),
    lines(GET, HOST, b"Content-Length: -5"),
    lines(GET, HOST, b"Content-Length: 0x5"),
    lines(GET, HOST, b"Content-Length:"),
    lines(GET, HOST, b"Content-Length: 5 5"),
    lines(GET, HOST, b"Transfer-Encoding: xchunked"),
    lines(GET, HOST, b"Transfer-Encoding: chunked, identity"),
    lines(GET, HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    lines(GET, HOST, b"Transfer-Encoding: gzip, chunked"),
    lines(GET, HOST, b"Transfer-Encoding: \x0bchunked"),
    lines(GET, HOST, b"Transfer-Encoding:"),
    lines(b"GET / HTTP/1.0", HOST, b"Transfer-Encoding: chunked"),
    lines(GET, b"Host : localhost"),
    lines(GET, HOST, b"Content-Length : 5"),
    lines(GET, HOST, b" folded: yes"),
    lines(GET, HOST, b"X-Folded: a", b"\tb"),
    lines(GET, HOST, b": nameless"),
    lines(GET, HOST, b"no colon"),
    lines(GET, HOST, b"X: a\rb"),
    lines(GET, HOST, b"X: a\0b"),
    lines(GET, HOST, b"X\xe9: name"),
    lines(GET, HOST + b"\nX: bare LF"),
    b"GET / HTTP/1.1\nHost: localhost\n\n",
    lines(GET, HOST, end=b"\r\n\n"),
    lines(GET, HOST, end=b"\n\r\n"),
    lines(GET),
    lines(GET, HOST, HOST),
    lines(GET, b"Host: a, b"),
    lines(GET, b"Host: a/b"),
    lines(GET, b"Host: user@a"),
    lines(b"GET  / HTTP/1.1", HOST),
    lines(b"GET /  HTTP/1.1", HOST),
    lines(b"GET\t/ HTTP/1.1", HOST),
    lines(b"GET / HTTP/1.1 ", HOST),
    lines(b" GET / HTTP/1.1", HOST),
    lines(b"GET /a b HTTP/1.1", HOST),
    lines(b"GET /", HOST),
    lines(b"GET / http/1.1", HOST),
    lines(b"GET / HTTP/11", HOST),
    lines(b"GET index.html HTTP/1.1", HOST),
    lines(b"GET /#top HTTP/1.1", HOST),
    lines(b"GET * HTTP/1.1", HOST),
    lines(b"GET ftp://localhost/ HTTP/1.1", HOST),
    lines(b"GET http:///1.bin HTTP/1.1", HOST),
    lines(b"GET http://a:b@localhost/ HTTP/1.1", HOST),
    lines(b"GET /%zz HTTP/1.1", HOST),
    lines(b"GET /% HTTP/1.1", HOST),
    lines(b"BREW / HTTP/1.1", HOST),
    lines(b"get / HTTP/1.1", HOST),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n" * 20,
)

_GOOD = (
    asks("/"),
    asks("/", version="1.0"),
    asks("/", version="1.0", Connection="keep-alive"),
    asks("/", Connection="close"),
    asks("/", version="1.2"),
    asks("/page.html"),
    asks("/page.html?query=1"),
    asks("/page.html", "HEAD"),
    asks("/none"),
    asks("/none", "HEAD"),
    asks("/page.html/"),
    asks("/with%20index"),
    asks("/with%20index?a=b"),
    asks("/with%20index/"),
    asks("/listed"),
    asks("/listed/"),
    asks("/listed/", "HEAD"),
    asks("/listed/a%26b%20%3Cc%3E.txt"),
    asks("/listed/%2541.txt"),
    asks("/listed/%41.txt"),
    asks("/deep/er/./and/../and/deeper/leaf.json"),
    asks("/deep/../../1.bin"),
    asks("/..%2f1.bin"),
    asks("//1.bin"),
    asks("//localhost/"),
    asks("/1.bin%00"),
    asks("http://example.com/1.bin"),
    asks("HTTP://example.com:80"),
    asks("*", "OPTIONS"),
    asks("/1.bin", "OPTIONS"),
    asks("/none", "OPTIONS"),
    asks("/1.bin", "DELETE"),
    asks("/1.bin", "TRACE"),
    asks("localhost:80", "CONNECT"),
    asks("/text.txt"),
    *(
        asks("/text.txt", Accept_Encoding=value)
        for value in ("gzip", "br;q=0.5, gzip", "zstd, br, gzip", "*", "identity", "gzip;q=0", "")
    ),
    asks("/only.css", Accept_Encoding="br, gzip"),
    asks("/text.txt", Accept_Encoding="gzip", Range="bytes=1-3"),
    asks("/text.txt", If_None_Match="*"),
    asks("/text.txt", If_None_Match='"other"'),
    asks("/text.txt", If_Match='"other"'),
    asks("/text.txt", If_Match="*"),
    asks("/text.txt", If_Modified_Since=MODIFIED),
    asks("/text.txt", If_Modified_Since=BEFORE),
    asks("/text.txt", If_Unmodified_Since=BEFORE),
    asks("/none", If_Match="*"),
    asks("/513.bin", Range="bytes=1-2", If_Range=MODIFIED),
    asks("/513.bin", Range="bytes=1-2", If_Range=BEFORE),
    asks("/513.bin", Range="bytes=1-2", If_Range='"other"'),
    *(
        asks("/4097.bin", Range=f"bytes={spec}")
        for spec in ("0-0", "-1", "4000-", "0-1,3-4,4096-", "9999-", "5-4", "0-9,5-20", ",")
    ),
    asks("/4097.bin", "HEAD", Range="bytes=0-0"),
    asks(f"/{MIB + 3}.bin", Range="bytes=0-0,300000-700000,1048577-"),
    asks(f"/{MIB + 3}.bin"),
    asks("/1.bin", "POST", Content_Length="5") + b"12345" + asks("/4095.bin"),
    asks("/1.bin", Content_Length="5") + HIDDEN[:5] + asks("/511.bin"),
    asks("/1.bin", Content_Length="0") + asks("/511.bin"),
    asks("/1.bin", "POST", Content_Length="65537") + HIDDEN,
    asks("/1.bin", "POST", Transfer_Encoding="chunked") + b"0\r\n\r\n" + HIDDEN,
    asks("/1.bin", Expect="100-continue"),
    asks("/1.bin", "PUT", Expect="100-continue", Content_Length="5") + HIDDEN,
    asks("/1.bin", Expect="200-ok"),
    asks("/1.bin", Upgrade="h2c", Connection="upgrade"),
    asks("/" + "a" * 300),
    asks("/" + "a" * 9000),
    asks("/1.bin", X="y" * 17000),
    lines(GET, HOST, *(b"X-%d: y" % i for i in range(101))),
    lines(b"GET / HTTP/2.0", HOST),
    lines(b"GET / HTTP/0.9", HOST),
    b"\r\n\r\n" + asks("/1.bin"),
    asks("/1.bin")[:-2],
    b"",
    asks("/1.bin") + b"GET",
    asks("/1.bin") + asks("/none") + asks("/513.bin", "HEAD") + asks("/", version="1.0"),
    asks("/1.bin", Connection="close") + asks("/511.bin"),
)

#: All of them; behind each bad one a good one that must not be answered.
RAW = (*_GOOD, *(bad + HIDDEN for bad in SMUGGLING))
