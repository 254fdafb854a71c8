"""Runs a command that ends when its parent does: `python -m loadtest._leash command ...`.

What this file is
-----------------
A server under test does not read its stdin and must not outlive Locust, even where Locust was
killed.  PR_SET_PDEATHSIG is Linux's own, and bound to the *thread* that forked.  An end of file
on a pipe works on every system: this process holds the read end of one, whose write end only
Locust has.  At its end the command gets SIGTERM, and `GRACE` seconds later its whole process
group SIGKILL.  The exit code is the command's, or 128 + the signal's number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Final

#: Seconds between SIGTERM and SIGKILL.
GRACE: Final = 2.0


def end_with_stdin(child: subprocess.Popen[bytes]) -> None:
    """Wait for the end of stdin, then end `child` and everything that it started."""
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        kill_group(child.pid)


def kill_group(leader: int) -> None:
    """SIGKILL to what is left of the process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    # The other end of stdout must see its end when the command is gone, not when we are.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    threading.Thread(target=end_with_stdin, args=[child], daemon=True).start()
    code = child.wait()
    kill_group(child.pid)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)  # at once: the thread may still be in its read
