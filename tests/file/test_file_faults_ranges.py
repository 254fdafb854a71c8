"""Sets of ranges that were made to cost: what overlaps, what is many, what is long.

CVE-2011-3192 (Apache): 1,300 overlapping ranges were 1,300 copies of a file.  CVE-2025-62727
(Starlette): a Range field took time quadratic in its length.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from fileserving import BACKENDS, FileServer, Incoming, content, get, request_bytes

MIB = 1 << 20

#: The same bytes are wanted again and again.
known = functools.cache(content)

pytestmark = pytest.mark.parametrize(
    "combination", BACKENDS, ids=str, indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bombs")
    with open(directory / "large", "wb") as large:
        large.truncate(64 * MIB)
    (directory / "data").write_bytes(known(2 * MIB))
    (directory / "short").write_bytes(b"short\n")
    return directory


@pytest.mark.parametrize(
    "ranges",
    [
        ["0-"] * 1300,
        [f"{i}-" for i in range(1300)],
        [f"5-{i}" for i in range(5, 1305)],
        [f"{i}-" for i in range(16)],
        ["0-", "0-", "-1", f"{MIB}-"],
    ],
    ids=["same", "nested", "growing", "sixteen", "few"],
)
def test_cve_2011_3192_overlapping_ranges(server: FileServer, ranges: list[str]) -> None:
    """Never more of the file than there is of it."""
    with server.connect() as sock:
        response = get(sock, "/large", range="bytes=" + ",".join(ranges))
        assert response.status in (200, 206)
        assert len(response.body) <= 64 * MIB
        assert get(sock, "/data").status == 200


def test_sixteen_apart(server: FileServer) -> None:
    """16 that do not touch are served, each exactly; one more, and the file comes whole."""
    wanted = known(2 * MIB)
    ranges = [(i * 131072 + 7, i * 131072 + 7 + 65537) for i in range(15, -1, -1)]
    text = [f"{first}-{last}" for first, last in ranges]
    with server.connect() as sock:
        response = get(sock, "/data", range="bytes=" + ", ".join(text))
        assert response.status == 206
        boundary = response.fields["content-type"].partition("boundary=")[2].encode()
        _, *parts, end = response.body.split(b"--" + boundary)
        assert end == b"--\r\n"
        assert len(parts) == 16
        for part, (first, last) in zip(parts, ranges, strict=True):
            head, _, body = part.partition(b"\r\n\r\n")
            said = f"Content-Range: bytes {first}-{last}/{2 * MIB}".encode()
            assert said in head.split(b"\r\n")
            assert body == wanted[first : last + 1] + b"\r\n"
        response = get(sock, "/data", range="bytes=" + ", ".join([*text, "-1"]))
        assert (response.status, response.body) == (200, wanted)


def test_commas(server: FileServer) -> None:
    """8 KB of nothing but commas are no range: 200."""
    with server.connect() as sock:
        response = get(sock, "/data", range="bytes=" + "," * 8000)
        assert (response.status, response.body) == (200, known(2 * MIB))


def test_cve_2025_62727_many_ranges_cost_no_square(server: FileServer) -> None:
    """Starlette took quadratic time for them: 200 such heads would take minutes."""
    for value in (
        "bytes=" + ",".join("0-" for _ in range(4000)),
        "bytes=" + ",".join(f"{i}-" for i in range(2500)),
        "bytes=" + ",".join("-1" for _ in range(4000)),
        "bytes=" + "," * 15000,
        "bytes=" + " ," * 7000,
        "bytes=0-" + "0" * 15000,
        "bytes=" + "1" * 15000 + "-",
        "bytes=" + "-" * 15000,
        "bytes=0-1" + " " * 15000 + "x",
    ):
        request = request_bytes("/short", fields={"Range": value})
        with server.connect() as sock:
            for _ in range(25):
                sock.sendall(request)
                assert Incoming(sock).response().status in (200, 206, 416)
