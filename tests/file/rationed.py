"""`python -m rationed LIMIT NUMBER ...`: servers.file in a user namespace of its own.

LIMIT is max_inotify_instances or max_inotify_watches, and NUMBER how many there are of it.  What
stands in /proc/sys/user belongs to the user namespace of who writes it, so that the server finds
none left and nobody else does.  Exit code 1 and a reason where there can be no such namespace.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import sys

CLONE_NEWUSER = 0x10000000


def main() -> None:
    limit, number = sys.argv[1:3]
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWUSER):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with open(f"/proc/sys/user/{limit}", "w") as file:
            file.write(number)
    except (AttributeError, OSError) as error:
        sys.exit(f"no user namespace to limit inotify in: {error}")
    sys.argv[1:3] = []
    runpy.run_module("servers.file", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
