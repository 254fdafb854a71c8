"""A process works on a tree as fast as it can while a watcher reads: in the end all is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from watching import Copy, names, readable, settle

from pollers.watch import Watcher

WORKER = """
import contextlib, os, random, shutil, sys
seed, steps = map(int, sys.argv[1:])
random.seed(seed)
def path():
    top = "outside" if random.random() < 0.15 else "tree"
    return "/".join([top, *random.choices("abc", k=random.randint(1, 3))])
def write(at):
    with open(at, "ab") as file:
        file.write(b"x")
def save(at):
    write(at + "~")
    try:
        os.replace(at + "~", at)
    except OSError:
        os.unlink(at + "~")
for _ in range(steps):
    with contextlib.suppress(OSError):
        random.choices(
            [
                lambda: os.makedirs(path()),
                lambda: write(path()),
                lambda: save(path()),
                lambda: os.rename(path(), path()),
                lambda: os.unlink(path()),
                lambda: shutil.rmtree(path()),
            ],
            [5, 4, 4, 6, 2, 1],
        )[0]()
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_reading_while_it_happens_ends_with_what_is_there(
    watcher: Watcher, tree: Path, seed: int
) -> None:
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(seed), "3000"], cwd=tree.parent
    ) as worker:
        while worker.poll() is None:
            if readable(watcher, 0.01):
                copy.apply(watcher.read())
    assert worker.returncode == 0
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)
    assert copy.stale() == set()
