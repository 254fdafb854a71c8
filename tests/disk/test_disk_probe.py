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
from pollers.aio.probe import BLOCKING, REMEDIES, SIZE, measure, mounted, probe_path
from pollers.statx import Alignment

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /run rw,nosuid shared:2 master:1 - tmpfs tmpfs rw,size=10%
31 30 0:26 / /run/a\\040b rw - xfs /dev/with\\040space rw
32 22 0:27 /sub /data rw - btrfs /dev/sdb rw
33 32 0:28 / /data rw - overlay overlay rw,lowerdir=/l
"""


@pytest.fixture(scope="module", autouse=True)
def _direct_io() -> None:
    """Unlike its namesake: a directory without direct I/O is one of those that are told of."""


def test_whatever_a_directory_is_on_the_report_is_whole(tmp_path: Path) -> None:
    report = probe_path(tmp_path)
    assert report.remedy == REMEDIES[report.verdict]
    assert report.summary.startswith(("asynchronous", "blocks (", "no O_DIRECT: ", "no device"))
    assert report.filesystem
    if report.verdict in ("asynchronous", "blocks"):
        assert report.switches is not None
        assert (report.switches >= BLOCKING) == (report.verdict == "blocks")
        assert report.submit_us is not None
        assert report.submit_us > 0
    else:
        assert (report.switches, report.submit_us) == (None, None)
    assert list(tmp_path.iterdir()) == [], "nothing is left there"


def test_memory_is_not_called_a_disk() -> None:
    directory = "/dev/shm"
    if mounted(directory)[0] != "tmpfs":
        pytest.skip(f"{directory} is no tmpfs here")
    report = probe_path(directory)
    assert (report.verdict, report.summary) == ("no device", "no device behind it (tmpfs)")
    assert "memory" in report.remedy
    assert report.switches is None


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make a filesystem in an image and mount it by a loop device.  That takes root."""
    mounts: list[Path] = []

    def tool(*words: str) -> None:
        if shutil.which(words[0]) is None:
            pytest.skip(f"a filesystem is made with {words[0]}, which is not installed")
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


@pytest.mark.parametrize("place", ["pytest's directory", "ext4 on a loop device"])
def test_reads_that_block_are_counted(
    tmp_path: Path, mount: Callable[..., Path], place: str
) -> None:
    """A cold file without O_DIRECT stands for a filesystem that falls back to the page cache."""
    directory = mount("mkfs.ext4", "-q", "-F") if place.startswith("ext4") else tmp_path
    fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, os.urandom(SIZE))
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if reason := why_not_cold(fd):
            pytest.skip(f"{directory} ({mounted(str(directory))[0]}): {reason}")
        measured = measure(DirectFile(fd, Alignment(512, 512)))
    finally:
        os.close(fd)
    assert measured.switches >= BLOCKING


def why_not_cold(fd: int) -> str:
    """Why a read of what was just evicted would not have to wait for a disk; "" where it would."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return ""
    except OSError as error:
        return f"what is in memory is not told there (preadv2 with RWF_NOWAIT: {error.strerror})"
    return "a file is not evicted from memory there (POSIX_FADV_DONTNEED)"


def test_ext4_on_a_loop_device_is_asynchronous(mount: Callable[..., Path]) -> None:
    directory = mount("mkfs.ext4", "-q", "-F")
    report = probe_path(directory)
    assert (report.verdict, report.filesystem) == ("asynchronous", "ext4")
    assert (report.summary, report.remedy) == ("asynchronous", "")
    assert report.switches is not None
    assert report.switches < BLOCKING
    assert report.submit_us is not None
    assert report.submit_us > 0
    assert report.device.startswith("/dev/loop")
    assert [each.name for each in directory.iterdir()] == ["lost+found"], "nothing is left there"


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
