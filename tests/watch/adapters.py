"""Which watchers work here, asked once for all tests."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from pollers import watch
from pollers.watch import Watcher

#: How often one that polls looks.
PERIOD = 0.02

probe = functools.cache(watch.probe)


def available(name: str) -> Callable[[], Watcher]:
    """What makes the watcher `name`; fails or skips where that does not work here.

    A module that is about one watcher calls it where it is imported.
    """
    found = probe(name)
    if found.available:
        return lambda: watch.create(name, period=PERIOD)
    if found.expected:
        pytest.fail(f"this platform should have {name}, but: {found.reason}", pytrace=False)
    pytest.skip(found.reason, allow_module_level=True)
