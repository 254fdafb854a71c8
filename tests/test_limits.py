"""The system's limits: how they are read, judged and raised."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import pollers
from pollers import limits

PLENTY = {
    "fs.aio-max-nr": 65536,
    "fs.aio-nr": 0,
    "net.core.somaxconn": 4096,
    "net.ipv4.ip_local_port_range": 32768,
    "net.ipv4.ip_local_port_range.1": 60999,
    "kern.maxfilesperproc": 230_000,
    "kern.ipc.soacceptqueue": 4096,
    "net.inet.ip.portrange.first": 10000,
    "net.inet.ip.portrange.last": 65535,
}

SYSTEMS = [limits._linux, limits._freebsd]


@pytest.mark.parametrize("system", SYSTEMS)
def test_enough_needs_no_remedy(system: limits.System) -> None:
    found = system(10_000, PLENTY.get)
    assert len(found) == 3
    assert all(limit.enough is True and limit.remedy == "" for limit in found)


@pytest.mark.parametrize(
    ("system", "changes", "name", "remedy"),
    [
        (
            limits._linux,
            {"fs.aio-nr": 60_000},
            "fs.aio-max-nr - fs.aio-nr",
            "sysctl -w fs.aio-max-nr=125536",
        ),
        (
            limits._linux,
            {"net.core.somaxconn": 128},
            "net.core.somaxconn",
            "sysctl -w net.core.somaxconn=4096",
        ),
        (
            limits._linux,
            {"net.ipv4.ip_local_port_range": 60000},
            "net.ipv4.ip_local_port_range",
            'sysctl -w net.ipv4.ip_local_port_range="1024 65535"',
        ),
        (
            limits._freebsd,
            {"kern.maxfilesperproc": 5000},
            "kern.maxfilesperproc",
            "sysctl kern.maxfilesperproc=10240",
        ),
        (
            limits._freebsd,
            {"kern.ipc.soacceptqueue": 128},
            "kern.ipc.soacceptqueue",
            "sysctl kern.ipc.soacceptqueue=4096",
        ),
        (
            limits._freebsd,
            {"net.inet.ip.portrange.first": 64000},
            "net.inet.ip.portrange",
            "sysctl net.inet.ip.portrange.first=10000",
        ),
    ],
)
def test_too_little_names_the_command(
    system: limits.System, changes: dict[str, int], name: str, remedy: str
) -> None:
    found = {limit.name: limit for limit in system(10_000, (PLENTY | changes).get)}
    assert [limit.name for limit in found.values() if not limit.enough] == [name]
    assert found[name].enough is False
    assert found[name].remedy == f"as root: {remedy}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_cannot_be_read_is_unknown(system: limits.System) -> None:
    for limit in system(10_000, lambda name: None):
        assert (limit.value, limit.enough, limit.remedy) == (None, None, "")


@pytest.mark.parametrize(
    ("soft", "hard", "enough", "remedies"),
    [
        (20_000, 20_000, [True, True], [False, False]),
        (1024, 20_000, [True, True], [False, False]),  # raised without being asked
        (1024, 4096, [False, False], [True, True]),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, [True, True], [False, False]),
    ],
)
def test_the_limit_of_open_files(
    soft: int, hard: int, enough: list[bool], remedies: list[bool]
) -> None:
    found = limits._nofile(10_000, (soft, hard))
    assert [limit.enough for limit in found] == enough
    assert [bool(limit.remedy) for limit in found] == remedies


def test_the_remedy_for_open_files_works() -> None:
    """Copied to a shell as it is printed."""
    soft, _ = limits._nofile(300, (256, 256))
    done = subprocess.run(
        ["sh", "-c", f"ulimit -S -n 256; {soft.remedy}; ulimit -n"],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.stdout == f"{300 + limits.OTHER_FDS}\n", done.stderr


def test_reading_this_system() -> None:
    found = limits.read()
    assert [limit.name for limit in found[:2]] == ["nofile (soft)", "nofile (hard)"]
    assert len(found) >= 2
    for limit in found:
        assert limit.need > 0
        assert limit.value is None or limit.value >= 0
        assert limit.meaning


def test_more_connections_need_more() -> None:
    few, many = limits.read(10), limits.read(10**9)
    assert all(limit.enough is not False for limit in few)
    assert many[1].enough is False or many[1].value == sys.maxsize


@pytest.mark.skipif("aio" not in pollers.expected_names(), reason="AIO is Linux's")
def test_the_need_of_aio_is_that_of_its_poller() -> None:
    from pollers.aio.poller import FIRST_CAPACITY

    assert limits.AIO_FIRST == FIRST_CAPACITY
    needs = {n: limits._linux(n, PLENTY.get)[0].need for n in (1023, 1024, 10_000)}
    assert needs == {1023: 1536, 1024: 3072, 10_000: 24_576}


@pytest.mark.skipif(not Path("/proc/sys").exists(), reason="there is no /proc/sys")
def test_numbers_of_proc() -> None:
    assert limits._proc_number("fs.aio-max-nr") == int(Path("/proc/sys/fs/aio-max-nr").read_text())
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert limits._proc_number("net.ipv4.ip_local_port_range") == int(low)
    assert limits._proc_number("net.ipv4.ip_local_port_range.1") == int(high)
    assert limits._proc_number("net.ipv4.ip_local_port_range.2") is None
    assert limits._proc_number("no.such.thing") is None


def test_numbers_of_sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FreeBSD's sysctl(8) answers; also where it is missing, fails or says something else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert limits._sysctl_number("kern.maxfilesperproc") is None
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(
        '#!/bin/sh\n[ "$1" = -n ] && [ "$2" = kern.maxfilesperproc ] && echo 230427\n'
    )
    sysctl.chmod(0o755)
    assert limits._sysctl_number("kern.maxfilesperproc") == 230427
    assert limits._sysctl_number("kern.nothing") is None
    sysctl.write_text("#!/bin/sh\necho a word\n")
    assert limits._sysctl_number("kern.maxfilesperproc") is None


def test_raising_the_limit_of_open_files() -> None:
    program = """if True:
        import resource, pollers
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        assert pollers.raise_nofile() == (hard, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert pollers.raise_nofile() == (hard, hard)
    """
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, values: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert limits.raise_nofile() == (256, resource.RLIM_INFINITY)
