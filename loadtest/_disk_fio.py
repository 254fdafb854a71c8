"""fio as a peer: its command line for a cell, and its JSON as a measurement.

Facts about fio (3.x)
---------------------
*   libaio keeps --iodepth reads under way from one thread; by default it submits them one by one
    and takes what has completed.  `libaio-batch` lets it submit and take as many as there are.
*   psync is pread(2), one read a thread: a depth of N is N threads (--numjobs), each on a part of
    the file of its own.  A sequential load is then N sequences, where ours is one.
*   --group_reporting adds the threads up; `job_runtime` is then the sum of their run times, which
    `usr_cpu` and `sys_cpu` are per cent of.
*   With --output-format=json+ every bucket of its histogram is there: nanoseconds -> count.
    `lat_ns` is from before the submission to the completion, as ours is.
*   Its bytes are not compared with the file's: it writes and verifies files of its own form only.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from loadtest import _peers
from loadtest._disk_cells import Load
from loadtest._histogram import Histogram

NAME: Final = "fio"
#: How -> fio's words for it.
_OPTIONS: Final = {
    "libaio": ["--ioengine=libaio"],
    "libaio-batch": ["--ioengine=libaio", "--iodepth_batch_complete_min=1"],
    "psync": ["--ioengine=psync"],
}


class BadOutput(ValueError):
    """fio's output has no figures; `str()` is one line."""


def missing(how: str) -> str:
    """Why fio cannot run this engine here, in one line with what to do; "" where it can."""
    found = _peers.program(NAME)
    if found is None:
        return "fio is not installed: apt-get install fio"
    asked = subprocess.run([found, "--enghelp"], capture_output=True, text=True, check=False)
    engine = how.partition("-")[0]
    if engine not in asked.stdout.split():
        return f"this fio has no engine {engine}: install one that was built with it"
    return ""


def version() -> str | None:
    """What fio calls itself; None where it is not installed."""
    found = _peers.program(NAME)
    if found is None:
        return None
    asked = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def command(
    load: Load,
    how: str,
    file: Path,
    size: int,
    seed: int,
    warmup: float,
    measure: float,
    cpu: int | None,
    out: Path,
) -> list[str]:
    """The command line for one measurement; `out` is where its JSON goes.  Times are seconds."""
    jobs = load.depth if how == "psync" else 1
    part = size // jobs // load.block * load.block
    words = [
        *(_peers.program(NAME) or NAME, "--name=pollmark", f"--filename={file}", "--readonly"),
        *(f"--rw={'randread' if load.pattern == 'random' else 'read'}", f"--bs={load.block}"),
        *(*_OPTIONS[how], f"--direct={int(load.direct)}", f"--randseed={seed}"),
        *("--thread", f"--numjobs={jobs}", f"--size={part}", f"--offset_increment={part}"),
        *("--group_reporting", f"--iodepth={load.depth // jobs}"),
        f"--runtime={round(measure * 1000)}ms",
        *("--lat_percentiles=1", "--eta=never", "--output-format=json+", f"--output={out}"),
    ]
    if how == "libaio-batch":
        words += [f"--iodepth_batch={load.depth}", f"--iodepth_batch_complete_max={load.depth}"]
    if load.direct:  # what was read through the page cache once is not cold any more
        words += ["--time_based", f"--ramp_time={round(warmup * 1000)}ms"]
    return words if cpu is None else [*words, f"--cpus_allowed={cpu}"]


def parse(text: str, load: Load) -> dict[str, Any]:
    """The figures in fio's output.  Raises BadOutput."""
    try:
        # Warnings may stand before it.
        job = json.loads(text[text.index("{") :])["jobs"][0]
        if job["error"]:
            raise BadOutput(f"fio ended with error {job['error']}")
        read = job["read"]
        reads, seconds = int(read["total_ios"]), read["runtime"] / 1000
        bins = read["lat_ns"].get("bins", {})
        if not reads or not seconds or not bins:
            raise BadOutput("fio read nothing within its window: give --measure more seconds")
        spent = job["job_runtime"] * 1000 / 100 / reads  # us a read, for each per cent of CPU
        user, system = job["usr_cpu"] * spent, job["sys_cpu"] * spent
        return {
            "seconds": seconds,
            "reads": reads,
            "throughput": reads / seconds,
            "bytes_per_second": reads * load.block / seconds,
            "latency": _histogram(bins, read["lat_ns"]).summary(),
            "lag": None,
            "reader": {
                "user_cpu_us_per_read": user,
                "system_cpu_us_per_read": system,
                "cpu_share": (user + system) * reads / seconds / 1e6,
                "switches_per_read": job["ctx"] / reads,
                **_submission(read),
            },
            "holds": {},
            "checked": {"numbers": 0, "digests": 0},
            "warm_up": {"seconds": 0.0, "steady": True},  # it has a fixed one, and does not judge
        }
    except (ValueError, KeyError, IndexError, TypeError) as error:
        if isinstance(error, BadOutput):
            raise
        said = re.sub(r"\s+", " ", text).strip()[:200] or "nothing"
        raise BadOutput(f"fio's output has no figures ({error!r}); it said: {said}") from None


def _histogram(bins: Mapping[str, int], summary: Mapping[str, Any]) -> Histogram:
    made = Histogram()
    for value, count in bins.items():
        made.record([int(value)] * count)
    made.minimum, made.maximum = int(summary["min"]), int(summary["max"])
    made.sum = int(summary["mean"] * summary["N"])
    return made


def _submission(read: Mapping[str, Any]) -> dict[str, float]:
    """The time to submit, where the engine submits."""
    mean = read["slat_ns"]["mean"]
    return {"submit_us_per_read": mean / 1000} if mean else {}
