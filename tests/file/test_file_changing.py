"""What changes is served as it is now: replaced, rewritten, gone, come, while it is being sent.

With a watcher: at once, on a connection that is kept, so that cache and memo are in play.  Over
every backend and loop: each has a way of its own to hold on to a file.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fileserving import (
    BACKENDS,
    COMBINATIONS,
    LOOPS,
    MIB,
    Combination,
    FileServer,
    Incoming,
    content,
    get,
    quiet,
    request_bytes,
    serving_files,
    until,
)

every = pytest.mark.parametrize(
    "combination",
    [*BACKENDS, *(each for each in COMBINATIONS if each.poller is None)],
    ids=str,
    indirect=True,
)

#: Every way in which the sizes of two files can differ, where it matters to a backend.
SIZES = (0, 1, 4096, 5000, 40000, 65536, 300_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A document root that the tests change; each in a directory of its own."""
    return tmp_path_factory.mktemp("changing")


@pytest.fixture(scope="module")
def watching(combination: Combination, site: Path) -> Iterator[FileServer]:
    """One server of each combination, which is told of changes."""
    with quiet(FileServer(site, *combination.words, "--watcher", "auto")) as server:
        if server.ready["watcher"] == "none":
            pytest.skip("nothing here tells of changed files")
        yield server


@pytest.fixture
def place(site: Path) -> Iterator[Path]:
    """A directory below the root, for one test."""
    directory = site / "place"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def sock(watching: FileServer) -> Iterator[socket.socket]:
    """A connection that is kept."""
    with watching.connect() as sock:
        yield sock


def replace(path: Path, body: bytes) -> None:
    """As an editor saves: never a half-written file under that name."""
    fresh = path.with_name("fresh~")
    fresh.write_bytes(body)
    fresh.rename(path)


@every
def test_replaced_by_rename(place: Path, sock: socket.socket) -> None:
    """Many times over, each time another inode; asked for twice, once from the memo."""
    file, tags = place / "f", set()
    for i in range(60):
        body = content(SIZES[i % len(SIZES)], i)
        replace(file, body)
        first, second = get(sock, "/place/f"), get(sock, "/place/f")
        assert first.body == second.body == body, i
        assert first.fields["etag"] == second.fields["etag"]
        assert first.fields["etag"] not in tags
        tags.add(first.fields["etag"])


@every
def test_rewritten_in_place(place: Path, sock: socket.socket) -> None:
    """The same inode and the same size: another ETag all the same, and the new bytes."""
    file = place / "f"
    file.write_bytes(content(70000))
    first = get(sock, "/place/f")
    assert first.body == content(70000)
    with open(file, "r+b") as writer:
        for i in range(20):
            body = content(70000, i + 1)

            def ticked(body: bytes = body, born: int = file.stat().st_ctime_ns) -> bool:
                """Written, and with another time by the kernel's clock for files."""
                os.pwrite(writer.fileno(), body, 0)
                return file.stat().st_ctime_ns != born

            until(ticked)
            changed = get(sock, "/place/f", if_none_match=first.fields["etag"])
            assert (changed.status, changed.body) == (200, body), i
            assert changed.fields["etag"] != first.fields["etag"]
            first = changed


@every
def test_grown_and_shrunk(place: Path, watching: FileServer, sock: socket.socket) -> None:
    file = place / "f"
    for size in (1, 5000, 100, 200_000, 65536, 65537, 0, 4096):
        file.write_bytes(b"")
        os.truncate(file, size)
        response = get(sock, "/place/f")
        assert response.body == bytes(size)
        with open(file, "ab") as end:
            end.write(b"tail")
        assert get(sock, "/place/f").body == bytes(size) + b"tail"
        assert get(sock, "/place/f", range="bytes=-4").body == b"tail"
        # Until the server has done with it: it may look at the size after it has sent (splice),
        # and what it then finds cut off ends the connection.
        watching.counters()


@every
def test_come_and_gone(place: Path, sock: socket.socket) -> None:
    file = place / "f"
    for i in range(20):
        assert get(sock, "/place/f").status == 404
        file.write_bytes(content(5000, i))
        assert get(sock, "/place/f").body == content(5000, i)
        file.unlink()


@every
def test_precompressed_sibling_comes_and_goes(place: Path, sock: socket.socket) -> None:
    file, sibling = place / "f.txt", place / "f.txt.gz"
    file.write_bytes(b"plain")

    def asked() -> tuple[bytes, str | None, str | None]:
        response = get(sock, "/place/f.txt", accept_encoding="gzip")
        named = response.fields
        return response.body, named.get("content-encoding"), named.get("vary")

    for i in range(10):
        assert asked() == (b"plain", None, None)
        sibling.write_bytes(b"gzip %d" % i)
        assert asked() == (b"gzip %d" % i, "gzip", "Accept-Encoding")
        assert get(sock, "/place/f.txt").fields["vary"] == "Accept-Encoding"
        replace(sibling, b"another")
        assert asked() == (b"another", "gzip", "Accept-Encoding")
        sibling.unlink()
    replace(file, b"newer")
    assert asked() == (b"newer", None, None)


@every
def test_index_and_listing(place: Path, sock: socket.socket) -> None:
    (place / "one").write_bytes(b"")
    for i in range(5):
        assert b'<a href="one">' in get(sock, "/place/").body
        (place / "two").write_bytes(b"")
        assert b'<a href="two">' in get(sock, "/place/").body
        (place / "two").unlink()
        (place / "index.html").write_bytes(b"index %d" % i)
        assert get(sock, "/place/").body == b"index %d" % i
        replace(place / "index.html", b"another")
        assert get(sock, "/place/").body == b"another"
        (place / "index.html").unlink()


@every
def test_directory_replaced(place: Path, sock: socket.socket) -> None:
    """What lies below has another path now, and other files that path."""
    for name in ("blue", "green"):
        (place / name / "in" / "side").mkdir(parents=True)
        (place / name / "in" / "side" / "f").write_bytes(name.encode() * 1000)
    live = place / "live"
    for name, other in itertools.islice(
        itertools.cycle([("blue", "green"), ("green", "blue")]), 10
    ):
        (place / name).rename(live)
        assert get(sock, "/place/live/in/side/f").body == name.encode() * 1000
        assert get(sock, f"/place/{name}/in/side/f").status == 404
        assert get(sock, f"/place/{other}/in/side/f").body == other.encode() * 1000
        live.rename(place / name)
        assert get(sock, "/place/live/in/side/f").status == 404


@every
def test_link_replaced(place: Path, sock: socket.socket) -> None:
    """As a deployment switches from one release to the next."""
    for name in ("one", "two"):
        (place / name).mkdir()
        (place / name / "f").write_bytes(name.encode())
    current = place / "current"
    for name in ("one", "two") * 5:
        (place / "fresh~").symlink_to(name)
        (place / "fresh~").rename(current)
        assert get(sock, "/place/current/f").body == name.encode()


@every
def test_file_becomes_directory(place: Path, sock: socket.socket) -> None:
    name = place / "x"
    for i in range(5):
        name.write_bytes(content(600, i))
        assert get(sock, "/place/x").body == content(600, i)
        name.unlink()
        name.mkdir()
        assert get(sock, "/place/x").status == 301
        assert get(sock, "/place/x/").status == 200
        name.rmdir()


@every
def test_transfer_keeps_its_inode(place: Path, watching: FileServer, sock: socket.socket) -> None:
    """Replaced or unlinked while it is being sent, it is sent to its end; others get the new."""
    file = place / "f"
    size = 8 * MIB + 5
    old, new = content(size, 1), content(size - 7, 2)
    for status, after in ((200, new), (404, b"404 Not Found\n")):
        replace(file, old)
        with watching.connect(receive_buffer=16384) as slow:
            stalls = watching.counters()["stalls"]
            slow.sendall(request_bytes("/place/f"))
            while watching.counters()["stalls"] == stalls:
                pass
            if status == 200:
                replace(file, new)
            else:
                file.unlink()
            other = get(sock, "/place/f")
            assert (other.status, other.body == after) == (status, True)
            incoming = Incoming(slow)
            assert incoming.response().body == old
            slow.sendall(request_bytes("/place/f"))
            again = incoming.response()
            assert (again.status, again.body == after) == (status, True)


def test_without_a_watcher(tmp_path: Path) -> None:
    """A stat a second tells: what changed is served soon, and never a mixture before that."""
    file, sibling = tmp_path / "f.txt", tmp_path / "f.txt.gz"
    file.write_bytes(content(5000, 0))
    with (
        serving_files(tmp_path, *LOOPS[0].words, "--watcher", "none") as server,
        server.connect() as sock,
    ):
        assert server.ready["watcher"] == "none"

        def becomes(expected: bytes, change: Callable[[], object], among: list[bytes]) -> None:
            assert get(sock, "/f.txt", accept_encoding="gzip").body in among
            change()
            began = time.monotonic()
            while (now := get(sock, "/f.txt", accept_encoding="gzip").body) != expected:
                assert now in among
                assert time.monotonic() - began < 10

        first, second = content(5000, 0), content(5000, 1)
        becomes(second, lambda: replace(file, second), [first])
        becomes(b"gzip", lambda: sibling.write_bytes(b"gzip"), [second])
        becomes(second, sibling.unlink, [b"gzip"])
        sock.close()
        server.stop()


@every
def test_many_changes_at_random(place: Path, sock: socket.socket) -> None:
    """A model of the directory and the server agree after each of many changes."""
    chosen = random.Random(18)
    model: dict[str, bytes] = {}
    names = ["a", "b", "c.gz", "c"]
    for i in range(150):
        name, other = chosen.sample(names, 2)
        match chosen.randrange(4):
            case 0:
                model[name] = content(chosen.choice(SIZES), i)
                replace(place / name, model[name])
            case 1 if name in model:
                del model[name]
                (place / name).unlink()
            case 2 if name in model:
                model[other] = model.pop(name)
                (place / name).rename(place / other)
            case 3 if name in model:
                model[name] += b"more"
                with open(place / name, "ab") as end:
                    end.write(b"more")
        for each in names:
            response = get(sock, f"/place/{each}")
            if each in model:
                assert response.body == model[each], (i, each)
            else:
                assert response.status == 404
