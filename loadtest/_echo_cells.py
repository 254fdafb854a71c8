"""The rows and loads of the echo workload."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loadtest._cells import BASELINE, CONTROL, Load, Row, Suite, Unknown
from loadtest._workload import ECHO
from pollers.limits import CONNECTIONS

ROWS: Final = (
    Row(BASELINE, "epoll", "reactor", "epoll"),
    Row(CONTROL, "epoll (A/A)", "reactor", "epoll"),
    Row("epoll-splice", "epoll, splice", "reactor", "epoll", "splice"),
    Row("batch", "epoll, batch", "reactor", "epoll", "batch"),
    Row("aio", "aio", "reactor", "aio"),
    Row("aio-batch", "aio, batch", "reactor", "aio", "batch", usual=False),
    Row("poll", "poll", "reactor", "poll"),
    Row("select", "select", "reactor", "select"),
    Row("kqueue", "kqueue", "reactor", "kqueue"),
    Row("asyncio", "asyncio", "asyncio", None),
    Row("uvloop-0", "uvloop, UV_USE_IO_URING=0", "uvloop", None, env=(("UV_USE_IO_URING", "0"),)),
    Row("uvloop-1", "uvloop, UV_USE_IO_URING=1", "uvloop", None, env=(("UV_USE_IO_URING", "1"),)),
    Row("trio", "trio", "trio", None),
)

LOADS: Final = ("busy", "idle", "small")


def loads(names: Iterable[str], connections: int, size: int) -> list[Load]:
    """The loads of these names.  Raises Unknown.

    busy: every connection is active.  idle: one in a hundred is.  small: as many, all active, as
    select(2) can hold too.
    """
    small = min(900, connections)
    known = {
        "busy": Load("busy", connections, connections, size),
        "idle": Load("idle", connections, max(1, connections // 100), size),
        "small": Load("small", small, small, size),
    }
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise Unknown(f"no load is called {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in wanted]


SUITE: Final = Suite(
    workload=ECHO,
    rows=ROWS,
    loads=loads,
    load_names=", ".join(LOADS),
    quick={
        "rounds": 3,
        "connections": 900,
        "loads": "busy",
        "warmup": 0.3,
        "measure": 0.5,
        "budget": 88.0,
    },
    default={
        "rounds": 5,
        "connections": CONNECTIONS,
        "loads": "busy,idle",
        "warmup": 1.0,
        "measure": 1.0,
        "budget": 476.0,
    },
)
