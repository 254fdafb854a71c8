"""Attestation, against real processes that hold a facility or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import pollers
from loadtest._attest import FACILITIES, attest, judge, look, words

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/fd/0"), reason="no /proc/PID/fd on this system"
)

HOLD = "print('held', flush=True); sys.stdin.read()"


@contextmanager
def holder(code: str, **env: str) -> Iterator[int]:
    """A process that ran `code` and waits; yields its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys, select, socket; {code}; {HOLD}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | env,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


def ready(loop: str = "reactor", poller: str | None = "epoll", emulated: bool = False) -> dict:
    return {"ready": True, "loop": loop, "poller": poller, "emulated": emulated}


def needs(name: str) -> None:
    found = pollers.probe(name)
    if not found.available:
        pytest.skip(f"{name} is not available here: {found.reason}")


def test_an_epoll_is_seen_and_agrees_with_its_claim() -> None:
    needs("epoll")
    with holder("e = select.epoll(); s = [socket.socket() for _ in range(3)]") as pid:
        found = attest([pid], ready(poller="epoll"))
    assert (found["eventpoll"], found["sockets"], found["holds"]) == (1, 3, "epoll")
    assert (found["agrees"], found["why"]) == (True, "")


@pytest.mark.parametrize("loop", ["reactor", "asyncio", "trio", "uvloop"])
def test_a_claim_of_epoll_without_one_is_refused(loop: str) -> None:
    with holder("pass") as pid:
        found = attest([pid], ready(loop, "epoll"))
    assert found["agrees"] is False
    assert f"process {pid}" in found["why"]
    assert "holds no eventpoll" in found["why"]


@pytest.mark.parametrize("poller", ["poll", "select"])
def test_poll_and_select_are_attested_by_absence(poller: str) -> None:
    needs("epoll")
    with holder("pass") as pid:
        assert attest([pid], ready(poller=poller))["agrees"] is True
    with holder("e = select.epoll()") as pid:
        found = attest([pid], ready(poller=poller))
    assert found["agrees"] is False
    assert f"claims {poller} and holds epoll" in found["why"]


def test_an_aio_ring_is_found_in_the_mappings() -> None:
    needs("aio")
    with holder("import pollers; p = pollers.create('aio')") as pid:
        found = attest([pid], ready(poller="aio"))
        assert found["aio_rings"] == 1
        assert found["agrees"] is True, found["why"]
        assert attest([pid], ready(poller="epoll"))["agrees"] is False
    with holder("e = select.epoll()") as pid:
        assert "holds no aio_ring" in attest([pid], ready(poller="aio"))["why"]


def test_the_batch_backend_needs_a_ring_under_any_poller() -> None:
    held = dict.fromkeys(FACILITIES, 0) | {"eventpoll": 1}
    claim = ready(poller="epoll") | {"server": "echo", "backend": "batch"}
    assert judge(held, claim) == "claims the backend batch and holds no aio_ring"
    assert judge(held | {"aio_rings": 1}, claim) == ""
    assert judge(held | {"eventpoll": 0, "aio_rings": 1}, claim | {"poller": "poll"}) == ""


@pytest.mark.parametrize("setting", ["0", "1"])
def test_what_uvloop_holds_is_named_whatever_the_variable_says(setting: str) -> None:
    code = "import uvloop; l = uvloop.new_event_loop()"
    with holder(code, UV_USE_IO_URING=setting) as pid:
        held = look(pid)
        found = attest([pid], ready("uvloop", "libuv"))
    assert found["agrees"] is True, found["why"]
    assert held["eventpoll"] == 1
    assert ("io_uring" in found["holds"]) == (held["io_uring"] > 0)


def test_an_io_uring_under_a_claim_of_plain_epoll_is_refused() -> None:
    held = dict.fromkeys(FACILITIES, 0) | {"eventpoll": 1, "io_uring": 1}
    assert judge(held, ready("asyncio", "epoll")) == "claims epoll and holds io_uring"
    assert judge(held, ready("uvloop", "libuv")) == ""


def test_an_emulated_kqueue_must_hold_the_epoll_below_it() -> None:
    held = dict.fromkeys(FACILITIES, 0)
    assert "holds no eventpoll" in judge(held, ready(poller="kqueue", emulated=True))
    assert judge(held | {"eventpoll": 1}, ready(poller="kqueue", emulated=True)) == ""


def test_every_worker_is_looked_at() -> None:
    needs("epoll")
    with holder("e = select.epoll()") as one, holder("pass") as other:
        found = attest([one, other], ready(poller="epoll"))
    assert found["eventpoll"] == 1
    assert found["agrees"] is False
    assert f"process {other}" in found["why"]
    assert f"process {one}" not in found["why"]


def test_a_process_that_has_gone_is_neither_yes_nor_no() -> None:
    with holder("pass") as pid:
        pass
    found = attest([pid], ready())
    assert found["agrees"] is None
    assert str(pid) in found["why"]


def test_a_claim_without_a_rule_is_neither_yes_nor_no() -> None:
    found = attest([os.getpid()], ready(poller="carrier pigeon"))
    assert found["agrees"] is None
    assert "carrier pigeon" in found["why"]


def test_words() -> None:
    assert (
        words({"eventpoll": 1, "io_uring": 2, "aio_rings": 0, "sockets": 9}) == "epoll + io_uring"
    )
    assert words({}) == ""
