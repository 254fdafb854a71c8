"""Processes in a user namespace of their own, where a user's limits are theirs alone.

What stands in /proc/sys/user belongs to the user namespace of who writes it: so a process has few
watches left, or marks, and nobody else notices.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

_UNSHARED = """
import ctypes, json, sys
if ctypes.CDLL(None).unshare(0x10000000):  # CLONE_NEWUSER
    sys.exit("unshare")
try:
    for _name, _number in json.loads(sys.argv.pop(1)).items():
        with open("/proc/sys/user/" + _name, "w") as _limit:
            _limit.write(str(_number))
except OSError:
    sys.exit("unshare")
"""


def limited(code: str, limits: Mapping[str, int], *arguments: str, cwd: Path) -> str:
    """What `code` prints in a namespace with these limits (files of /proc/sys/user).

    Skips the test where there can be no such namespace.
    """
    done = subprocess.run(
        [sys.executable, "-c", _UNSHARED + code, json.dumps(limits), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.stderr == "unshare\n":
        pytest.skip("this system lets no process make a user namespace with limits of its own")
    assert done.returncode == 0, done.stderr
    return done.stdout
