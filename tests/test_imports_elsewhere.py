"""Every module loads where Linux's own names are missing: on a FreeBSD and a macOS, simulated.

In a process of its own the names that only Linux has are taken out of the standard library,
`select.kqueue` is put in, and sys.platform says another system.  What other packages do there is
not tested: those are loaded before, and Locust and gevent are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

SIMULATION = r'''
import asyncio, concurrent.futures, importlib, json, pkgutil, sys
import fcntl, os, resource, select, selectors, signal, socket, time
import hdrh.histogram, httptools, jinja2, matplotlib.pyplot, numpy, psutil, rich.live, trio, uvloop

GONE = {
    fcntl: ["F_SETPIPE_SZ", "F_GETPIPE_SZ"],
    os: ["splice", "SPLICE_F_", "eventfd", "eventfd_", "EFD_", "sched_", "O_DIRECT", "O_PATH",
         "O_TMPFILE", "memfd_create", "MFD_", "pidfd_open", "P_PIDFD", "copy_file_range",
         "RWF_", "setns", "unshare", "listxattr", "getxattr"],
    resource: ["prlimit", "RUSAGE_THREAD"],
    select: ["epoll"],
    selectors: ["EpollSelector"],
    socket: ["MSG_MORE", "MSG_ERRQUEUE", "SO_INCOMING_CPU", "TCP_QUICKACK"],
    time: ["CLOCK_BOOTTIME"],
}
if "darwin" in sys.argv[1]:
    GONE[os] += ["pipe2", "posix_fadvise", "POSIX_FADV_"]
    GONE[socket] += ["SOCK_CLOEXEC", "SOCK_NONBLOCK"]
for module, names in GONE.items():
    beginnings = tuple(name for name in names if name.endswith("_")) + ("EPOLL",)
    for name in list(vars(module)):
        if name in names or name.startswith(beginnings):
            delattr(module, name)


class kevent:
    def __init__(self, ident, filter=-1, flags=1, fflags=0, data=0, udata=0):
        self.ident, self.filter, self.flags = ident, filter, flags
        self.fflags, self.data, self.udata = fflags, data, udata


class kqueue:
    """Makes every change, and never has an event."""

    closed = False

    def control(self, changes, most, timeout=None, /):
        return [kevent(c.ident, c.filter, 0x4000) for c in changes or ()][:most]

    def fileno(self):
        return 3

    def close(self):
        self.closed = True


select.kevent, select.kqueue = kevent, kqueue
for kind, names in {
    "FILTER": "READ WRITE VNODE PROC SIGNAL TIMER",
    "EV": "ADD DELETE ENABLE DISABLE ONESHOT CLEAR ERROR EOF",
    "NOTE": "DELETE WRITE EXTEND ATTRIB LINK RENAME REVOKE LOWAT",
}.items():
    for number, name in enumerate(names.split()):
        setattr(select, f"KQ_{kind}_{name}", -1 - number if kind == "FILTER" else 1 << number)
kevent.__module__ = kqueue.__module__ = "select"
sys.modules["locust"] = sys.modules["gevent"] = None
sys.platform = sys.argv[1]

failed, without_locust, loaded = {}, [], []
for package in ("pollers", "servers", "loadtest"):
    top = importlib.import_module(package)
    for found in pkgutil.walk_packages(top.__path__, package + "."):
        if found.name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(found.name)
        except ImportError as error:
            if str(error.name).split(".")[0] in ("locust", "gevent"):
                without_locust.append(found.name)
            else:
                failed[found.name] = repr(error)
        except Exception as error:
            failed[found.name] = repr(error)
        else:
            loaded.append(found.name)

del sys.modules["locust"], sys.modules["gevent"]
from pollers import kqueue as adapter, limits, registry, system

poller = adapter.KqueuePoller()
print(json.dumps({
    "failed": failed,
    "without_locust": without_locust,
    "loaded": loaded,
    "expected": registry.expected_names(sys.platform),
    "user": poller._wake[1],
    "reuseport": system.REUSEPORT,
    "splice": system.HAS_SPLICE,
    "sendfile_takes_headers": system.SENDFILE_TAKES_HEADERS,
    "cores": system.cores(),
    "limits": [limit.name for limit in limits.read()],
    "epoll": registry.probe("epoll").reason,
}))
'''


@cache
def simulated(platform: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", SIMULATION, platform], capture_output=True, text=True, timeout=55
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(params=["freebsd15", "darwin"])
def elsewhere(request: pytest.FixtureRequest) -> dict[str, Any]:
    return simulated(request.param) | {"platform": request.param}


def test_every_module_loads(elsewhere: dict[str, Any]) -> None:
    assert elsewhere["failed"] == {}
    assert {"pollers.kqueue", "pollers.registry", "servers.workers"} <= {*elsewhere["loaded"]}


def test_only_the_load_needs_locust(elsewhere: dict[str, Any]) -> None:
    assert elsewhere["without_locust"]
    assert all(name.startswith("loadtest.") for name in elsewhere["without_locust"])


def test_the_kqueue_of_the_system_is_used_with_its_numbers(elsewhere: dict[str, Any]) -> None:
    assert "kqueue" in elsewhere["expected"]
    assert "epoll" not in elsewhere["expected"]
    assert elsewhere["user"] == (-11 if elsewhere["platform"] == "freebsd15" else -10)


def test_what_the_system_has_not_is_said(elsewhere: dict[str, Any]) -> None:
    assert elsewhere["splice"] is False
    assert elsewhere["cores"] == []
    assert "no select.epoll" in elsewhere["epoll"]
    assert elsewhere["sendfile_takes_headers"] is (elsewhere["platform"] == "freebsd15")


def test_workers_of_freebsd_share_their_port_by_so_reuseport_lb() -> None:
    assert simulated("freebsd15")["reuseport"] == 0x00010000


def test_the_limits_are_the_systems() -> None:
    assert "kern.ipc.soacceptqueue" in simulated("freebsd15")["limits"]
