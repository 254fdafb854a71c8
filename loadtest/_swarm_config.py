"""What a swarm opens and drives: its configuration, and the block of connections that follows.

The helper (_swarm.py) knows one way to connect and one way to drive, whatever the workload is;
here is what differs.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pollers
from loadtest._block import Block
from loadtest._connect import CannotConnect, Connector
from loadtest._exchange import Exchange, payloads
from loadtest._file_exchange import FileExchange, can_drop
from loadtest._pipeline import Pipeline
from loadtest._response import END, trouble
from loadtest._schedule import Schedule
from loadtest._shelf import ColdShelf, HotShelf, Shelf
from loadtest._site import Site, parse_mix
from loadtest._slow import BUFFER, SlowReaders
from loadtest._sources import Sources, resolve
from pollers.base import Poller
from pollers.limits import OTHER_FDS, raise_nofile

#: Seconds between the last connect and the first message of a schedule.
LEAD: Final = 0.01


@dataclass(frozen=True)
class Config:
    """What the swarm is to do."""

    url: str
    connections: int
    active: int
    size: int
    #: Messages a second; 0 for a closed loop.
    rate: float
    #: Messages in flight on a connection.
    pipeline: int
    #: A poller's name, or "auto" for the first that is available.
    poller: str
    seed: int
    connect_timeout: float
    #: Seconds after which a connection without its answer is given up.
    reply_timeout: float
    workload: str = "echo"
    #: Of files: the sizes and their weights, and whether they are evicted before each request.
    mix: str = ""
    cache: str = "hot"
    #: Where the files are; "" where that need not be known.
    root: str = ""
    #: Connections besides that read slowly, and their bytes a second.
    slow_readers: int = 0
    slow_rate: float = 0.0


class Failed(Exception):
    """The swarm cannot run; `str()` is one line: what, why, what to do."""


def create_poller(name: str) -> Poller:
    """The poller called `name`; "auto" is the first available that is no emulation."""
    if name == "auto":
        found = (pollers.probe(known) for known in pollers.names())
        name = next((one.name for one in found if one.available and not one.emulated), "poll")
    try:
        return pollers.create(name)
    except (pollers.UnknownPoller, pollers.Unavailable) as error:
        raise Failed(str(error)) from error


def check_fds(connections: int) -> None:
    """Raise Failed unless the fd limit, raised as far as it goes, allows `connections`."""
    soft, _ = raise_nofile()
    largest = soft - OTHER_FDS
    if connections > largest:
        raise Failed(
            f"{connections} connections do not fit in one process's {soft} file descriptors: "
            f"use at most {largest}, or raise the limit (ulimit -n {connections + OTHER_FDS})"
        )


class Echo:
    """Connections to an echo server."""

    def __init__(self, config: Config) -> None:
        self._config = config
        #: fds besides the connections.
        self.fds = 0

    def connect(self, poller: Poller) -> list[socket.socket]:
        """Open every connection.  Raises CannotConnect, ValueError."""
        config = self._config
        probe = payloads(min(config.size, 4096), config.seed)[0]
        address = resolve(config.url)
        sources = Sources(address[0])
        return Connector(poller, address, sources, config.connections, probe).run(
            config.connect_timeout
        )

    def exchange(self, poller: Poller, sockets: list[socket.socket], slots: list[int]) -> Block:
        """Drive them; `slots` are active."""
        config = self._config
        common = poller, sockets, slots, config.size, config.seed
        if config.pipeline == 1 and not config.rate:
            return Exchange(*common)
        start = time.monotonic_ns() + int(LEAD * 1e9)
        schedule = Schedule(config.rate, len(slots), start) if config.rate and slots else None
        return Pipeline(*common, depth=config.pipeline, schedule=schedule)


class Files:
    """Connections to a file server, some of them slow.

    The first message of each is a HEAD, so that 9,000 connections do not begin with as many files.
    """

    def __init__(self, config: Config) -> None:
        """Raises ValueError."""
        self._config = config
        self._site = Site(parse_mix(config.mix), config.cache, config.active)
        self._slow: list[socket.socket] = []
        files = len(self._site.files) if config.cache == "cold" else 0
        self.fds = config.slow_readers + files

    def connect(self, poller: Poller) -> list[socket.socket]:
        """Open every connection.  Raises CannotConnect, ValueError."""
        config, site = self._config, self._site
        address = resolve(config.url, "http")
        site.requests(f"{address[0]}:{address[1]}")
        sources = Sources(address[0])
        first = site.files[0]
        probe = f"HEAD{first.request.decode().removeprefix('GET')}".encode()

        def whole(received: bytes) -> bool:
            head, end, rest = received.partition(END)
            if not end:
                return False
            if why := trouble(head + end, first.size):
                raise CannotConnect(f"the first answer of the server for /{first.path}: {why}")
            if rest:
                raise CannotConnect("the server sent a body with its answer to HEAD")
            return True

        def open_all(count: int, receive_buffer: int = 0) -> list[socket.socket]:
            return Connector(
                poller,
                address,
                sources,
                count,
                probe,
                answer=whole,
                receive_buffer=receive_buffer,
            ).run(config.connect_timeout)

        sockets = open_all(config.connections)
        try:
            self._slow = open_all(config.slow_readers, BUFFER)
        except CannotConnect:
            for sock in sockets:
                sock.close()
            raise
        for sock in self._slow:  # they are read when it is time and not when they are ready
            poller.unregister(sock.fileno())
        return sockets

    def exchange(self, poller: Poller, sockets: list[socket.socket], slots: list[int]) -> Block:
        """Drive them; `slots` are active.  Raises ValueError where the files cannot be used."""
        config, site = self._config, self._site
        shelf: Shelf = HotShelf(site, config.seed)
        if config.cache == "cold":
            try:
                shelf = ColdShelf(site, config.seed, Path(config.root))
            except OSError as error:
                raise ValueError(f"a file to be evicted cannot be opened: {error}") from error
        slow = None
        if self._slow:
            slow = SlowReaders(self._slow, site, config.slow_rate, config.reply_timeout)
        return FileExchange(poller, sockets, slots, site, shelf, besides=slow, drops=can_drop())


def make_load(config: Config) -> Echo | Files:
    """What `config` asks for.  Raises Failed."""
    try:
        load = Files(config) if config.workload == "file" else Echo(config)
    except ValueError as error:
        raise Failed(str(error)) from error
    check_fds(config.connections + load.fds)
    return load
