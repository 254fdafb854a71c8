"""What the machine was when it was measured: without it a number means nothing.

Everything is read, nothing is assumed: what cannot be read is None.  Asking costs some
milliseconds, once a run.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any, Final

import psutil

from pollers import limits, system

#: Packages whose version can change a result.
PACKAGES: Final = (
    "pollmark",
    "gevent",
    "geventhttpclient",
    "hdrhistogram",
    "httptools",
    "locust",
    "numpy",
    "trio",
    "uvloop",
)
CPU: Final = Path("/sys/devices/system/cpu")


def environment(server_cpu: str, load_cpu: str) -> dict[str, Any]:
    """The list of METHOD: kernel, CPU, pinning, governor, Python, packages, limits, libc."""
    name, version = platform.libc_ver()
    return {
        "kernel": f"{platform.uname().system} {platform.release()}",
        "kernel_build": platform.version(),
        "machine": platform.machine(),
        "hypervisor": _hypervisor(),
        "cpu_model": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "usable_cores": system.cores(),
        "server_cpu": server_cpu,
        "load_cpu": load_cpu,
        "governor": read(CPU / "cpu0/cpufreq/scaling_governor"),
        "turbo_off": read(CPU / "intel_pstate/no_turbo"),
        "mitigations": _mitigations(),
        "clocksource": read(
            Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        ),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": list(os.getloadavg()),
        "python": sys.version.split()[0],
        "python_build": " ".join(platform.python_build()),
        "implementation": platform.python_implementation(),
        "libc": f"{name} {version}".strip() or None,
        "packages": {package: package_version(package) for package in PACKAGES},
        "limits": {limit.name: limit.value for limit in limits.read()},
        "limits_too_low": {one.name: one.remedy for one in limits.read() if one.enough is False},
        "network": "loopback",
    }


def filesystem(path: Path) -> str | None:
    """The type, device and mount point of what holds `path`: "ext4 on /dev/sda1 (/)"."""
    place = path.resolve()
    found = [
        one for one in psutil.disk_partitions(all=True) if place.is_relative_to(one.mountpoint)
    ]
    if not found:
        return None
    # The last of the deepest: what was mounted over another covers it.
    one = max(reversed(found), key=lambda one: len(one.mountpoint))
    return f"{one.fstype} on {one.device} ({one.mountpoint})"


def package_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read(path: Path) -> str | None:
    """The text of a small file; None where it cannot be read."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _cpuinfo(field: str) -> str | None:
    for line in (read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def _cpu_model() -> str | None:
    return _cpuinfo("model name") or platform.processor() or None


def _hypervisor() -> bool | None:
    """Whether the CPU says that it is a guest's; None where it does not say."""
    flags = _cpuinfo("flags")
    return None if flags is None else "hypervisor" in flags.split()


def _mitigations() -> dict[str, str] | None:
    """The kernel's defences that make entering it dearer, by vulnerability."""
    place = CPU / "vulnerabilities"
    if not place.is_dir():
        return None
    found = {path.name: read(path) or "" for path in sorted(place.iterdir())}
    return {name: text for name, text in found.items() if text.startswith("Mitigation")}
