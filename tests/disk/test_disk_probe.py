"""What `python -m pollers --path` finds out about a directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pollers.__main__ import main
from pollers.aio.direct import DirectFile
from pollers.aio.probe import BLOCKING, SIZE, measure, mounted, probe_path
from pollers.statx import Alignment

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /run rw,nosuid shared:2 master:1 - tmpfs tmpfs rw,size=10%
31 30 0:26 / /run/a\\040b rw - xfs /dev/with\\040space rw
32 22 0:27 /sub /data rw - btrfs /dev/sdb rw
33 32 0:28 / /data rw - overlay overlay rw,lowerdir=/l
"""


def test_a_directory_on_a_disk_is_asynchronous(tmp_path: Path) -> None:
    """Or what it is, if pytest's directory is elsewhere: only the reasons are checked then."""
    report = probe_path(tmp_path)
    if report.verdict != "asynchronous":
        pytest.skip(f"{tmp_path}: {report.summary}")
    assert (report.summary, report.remedy) == ("asynchronous", "")
    assert report.switches is not None
    assert report.switches < BLOCKING
    assert report.submit_us is not None
    assert report.submit_us > 0
    assert report.filesystem
    assert list(tmp_path.iterdir()) == [], "nothing is left there"


def test_memory_is_not_called_a_disk() -> None:
    directory = "/dev/shm"
    if mounted(directory)[0] != "tmpfs":
        pytest.skip(f"{directory} is no tmpfs here")
    report = probe_path(directory)
    assert (report.verdict, report.summary) == ("no device", "no device behind it (tmpfs)")
    assert "memory" in report.remedy
    assert report.switches is None


def test_reads_that_block_are_counted(tmp_path: Path) -> None:
    """A cold file without O_DIRECT stands for a filesystem that falls back to the page cache."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, os.urandom(SIZE))
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
        pytest.skip(f"a file cannot be evicted from memory on {tmp_path}")
    except BlockingIOError:
        pass
    measured = measure(DirectFile(fd, Alignment(512, 512)))
    os.close(fd)
    assert measured.switches >= BLOCKING


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make a filesystem in an image and mount it by a loop device.  That takes root."""
    mounts: list[Path] = []

    def tool(*words: str) -> None:
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
        if ended.returncode:
            pytest.skip(f"{' '.join(words[:3])}: {ended.stderr.strip()}")

    def make(*mkfs: str, options: str = "loop") -> Path:
        image = tmp_path / f"image{len(mounts)}"
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        point = tmp_path / f"mount{len(mounts)}"
        point.mkdir()
        tool(*mkfs, str(image))
        tool("mount", "-o", options, str(image), str(point))
        mounts.append(point)
        return point

    yield make
    for point in mounts:
        subprocess.run(["umount", str(point)], check=True, timeout=30)


def test_ext4_on_a_loop_device_is_asynchronous(mount: Callable[..., Path]) -> None:
    report = probe_path(mount("mkfs.ext4", "-q", "-F"))
    assert (report.verdict, report.filesystem) == ("asynchronous", "ext4")
    assert report.device.startswith("/dev/loop")


def test_ext4_that_journals_its_data_has_no_direct_io(mount: Callable[..., Path]) -> None:
    """It would open with O_DIRECT, and read through the page cache."""
    report = probe_path(mount("mkfs.ext4", "-q", "-F", options="loop,data=journal"))
    assert report.verdict == "no O_DIRECT"
    assert report.summary.startswith("no O_DIRECT: ")
    assert "threads" in report.remedy


def test_where_nothing_can_be_written_nothing_is_said(mount: Callable[..., Path]) -> None:
    point = mount("mkfs.ext4", "-q", "-F", options="loop,ro")
    report = probe_path(point)
    assert (report.verdict, report.summary) == ("unknown", "not known: Read-only file system")
    assert "can be written to" in report.remedy


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("ext4", "/dev/sda1")),
        ("/runner", ("ext4", "/dev/sda1")),
        ("/run", ("tmpfs", "tmpfs")),
        ("/run/a b/c", ("xfs", "/dev/with space")),
        ("/data/x", ("overlay", "overlay")),
    ],
)
def test_the_filesystem_is_the_one_on_top(path: str, expected: tuple[str, str]) -> None:
    assert mounted(path, MOUNTINFO) == expected


def test_the_command_tells_in_one_line_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--path", str(tmp_path), "--path", "/dev/shm"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "Direct reads in" in line]
    assert len(lines) == 2
    report = probe_path(tmp_path)
    assert f"Direct reads in {tmp_path} ({report.filesystem}): {report.verdict}" in lines[0]


def test_the_command_tells_programs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--json", "--path", str(tmp_path)])
    (path,) = json.loads(capsys.readouterr().out)["paths"]
    assert path["path"] == str(tmp_path)
    assert {"verdict", "summary", "remedy", "switches", "submit_us"} <= set(path)
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["paths"] == []


def test_what_is_no_directory_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path, words in (("gone", "No such file"), ("file", "Not a directory")):
        with pytest.raises(SystemExit) as ended:
            main(["--path", str(tmp_path / path)])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
