"""`python -m loadtest compare` as a process."""

from __future__ import annotations

import subprocess
import sys


def compare(*arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", "compare", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
