"""ci/freebsd, with commands in PATH that answer as FreeBSD's do: its logic, no more.

That FreeBSD's own commands answer so is not shown by this; they are asked for nothing that their
man pages do not have: uname(1), sysctl(8), ifconfig(8), mount(8), pkg(8).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "ci" / "freebsd"

#: What pkg rquery finds, unless a test says otherwise.
OFFERED = [
    *("python311", "python312", "py311-gevent", "rust"),
    *(
        f"py311-{name}"
        for name in (
            *("greenlet", "numpy", "matplotlib", "psutil", "pyzmq", "uvloop", "httptools"),
            *("msgpack", "brotli", "markupsafe", "pillow", "pip", "hypothesis"),
        )
    ),
]

UNAME = "case $1 in -s) echo {system} ;; -r) echo {release} ;; -m) echo amd64 ;; esac"

SYSCTL = """
case $1 in
-n) case $2 in
    kern.ipc.soacceptqueue) echo {backlog} ;;
    kern.maxfiles) echo 100000 ;;
    kern.maxfilesperproc) echo 90000 ;;
    *) echo "sysctl: unknown oid '$2'" >&2; exit 1 ;;
    esac ;;
esac
"""

PKG = """
case $1 in
-N) exit {activated} ;;
info) grep -qx "$3" {state}/installed ;;
rquery)
    if [ "$2" = -x ]; then grep -E "$4" {state}/offered
    else grep -x "$3" {state}/offered; fi ;;
query) grep -E "$4" {state}/installed ;;
install) shift 2; for name in "$@"; do echo "$name" >> {state}/installed; done ;;
esac
"""

Answers = Callable[..., "FreeBSD"]


class FreeBSD:
    """A PATH in which uname, sysctl, ifconfig, mount and pkg are scripts that write down calls."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bin = place / "bin"
        self.bin.mkdir()
        self.calls = place / "calls"
        self.calls.touch()
        (place / "installed").touch()
        self.offer(*OFFERED)
        self.command("uname", UNAME.format(system="FreeBSD", release="15.0-RELEASE-p3"))
        self.command("sysctl", SYSCTL.format(backlog=128))
        self.command("ifconfig", "echo '	inet 127.0.0.1 netmask 0xff000000'")
        self.command("mount", "")
        self.command("id", "echo 0")
        self.command("pkg", PKG.format(activated=0, state=place))
        for name in ("python3.11", "env"):
            self.command(name, "")

    def command(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{body}\n')
        path.chmod(0o755)

    def offer(self, *packages: str) -> None:
        (self.place / "offered").write_text("".join(f"{name}\n" for name in packages))

    def install(self, *packages: str) -> None:
        (self.place / "installed").write_text("".join(f"{name}\n" for name in packages))

    def run(self, *words: str) -> tuple[int, str]:
        """Run ci/freebsd; its status, and what it printed, stderr among it."""
        ended = subprocess.run(
            [shutil.which("dash") or "/bin/sh", SCRIPT, *words],
            env=os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
        )
        return ended.returncode, ended.stdout

    def called(self, command: str) -> list[str]:
        """How a command was called, without its name."""
        lines = self.calls.read_text().splitlines()
        return [line[len(command) + 1 :] for line in lines if line.startswith(f"{command} ")]


@pytest.fixture
def freebsd(tmp_path: Path) -> FreeBSD:
    return FreeBSD(tmp_path)


def line(output: str, *beginning: str) -> str:
    """The one line that begins with these words."""
    [found] = [
        each for each in output.splitlines() if each.split()[: len(beginning)] == [*beginning]
    ]
    return found


def test_another_system_is_named_with_what_to_use_there(freebsd: FreeBSD) -> None:
    freebsd.command("uname", UNAME.format(system="NetBSD", release="10.1"))
    status, output = freebsd.run("check")
    assert status == 2
    assert line(output, "FAILED", "system").endswith(
        "this is NetBSD, not FreeBSD; use ci/test and ci/compare here"
    )
    assert not freebsd.called("sysctl")


@pytest.mark.parametrize("release", ["9.3-RELEASE", "12.4-RELEASE", "13.5-STABLE"])
def test_a_release_without_packages_is_refused(freebsd: FreeBSD, release: str) -> None:
    freebsd.command("uname", UNAME.format(system="FreeBSD", release=release))
    status, output = freebsd.run("check")
    assert status == 2
    assert "older than 14" in line(output, "FAILED", "release")


@pytest.mark.parametrize(
    "release", ["14.0-RELEASE", "14.4-RELEASE-p1", "15.1-RELEASE", "16.0-CURRENT"]
)
def test_the_releases_that_are_supported(freebsd: FreeBSD, release: str) -> None:
    freebsd.command("uname", UNAME.format(system="FreeBSD", release=release))
    status, output = freebsd.run("check")
    assert status == 0, output
    assert line(output, "ok", "system").endswith(f"FreeBSD {release}, amd64")


def test_a_limit_that_is_too_low_is_a_warning_with_its_remedy(freebsd: FreeBSD) -> None:
    status, output = freebsd.run("check")
    assert status == 0
    assert "sysctl kern.ipc.soacceptqueue=4096" in line(output, "warning", "backlog")
    assert line(output, "ok", "files").endswith("kern.maxfiles is 100000")
    assert "ifconfig lo0 alias" in line(output, "warning", "loopback")
    assert freebsd.called("sysctl") == [
        call for call in freebsd.called("sysctl") if call.startswith("-n ")
    ]


def test_tune_raises_what_is_too_low_and_nothing_else(freebsd: FreeBSD) -> None:
    status, output = freebsd.run("--tune", "check")
    assert status == 0, output
    changes = [call for call in freebsd.called("sysctl") if not call.startswith("-n ")]
    assert changes == ["kern.ipc.soacceptqueue=4096"]
    aliases = [call for call in freebsd.called("ifconfig") if "alias" in call]
    assert len(aliases) == 8
    assert aliases[0] == "lo0 alias 127.0.0.2 netmask 255.255.255.255"


def test_tune_without_root_is_refused(freebsd: FreeBSD) -> None:
    freebsd.command("id", "echo 1001")
    status, output = freebsd.run("--tune", "check")
    assert status == 2
    assert "not root" in line(output, "FAILED", "root")


def test_the_python_is_the_one_that_pkg_has_gevent_for(freebsd: FreeBSD) -> None:
    status, output = freebsd.run("packages")
    assert status == 0, output
    assert line(output, "ok", "flavour").endswith("python3.11, by py311-gevent")
    freebsd.offer(*OFFERED, "py312-gevent")
    status, output = freebsd.run("packages")
    assert status == 2
    assert "py312-greenlet" in line(output, "FAILED", "packages")


def test_a_repository_without_gevent_is_refused(freebsd: FreeBSD) -> None:
    freebsd.offer("python311")
    status, output = freebsd.run("packages")
    assert status == 2
    assert "pkg update" in line(output, "FAILED", "flavour")


def test_a_python_that_is_too_old_is_refused(freebsd: FreeBSD) -> None:
    freebsd.offer("python310", "py310-gevent")
    status, output = freebsd.run("packages")
    assert status == 2
    assert "3.11 or later is needed" in line(output, "FAILED", "flavour")


def installs(freebsd: FreeBSD) -> list[str]:
    """What was given to pkg install, which runs under env(1)."""
    calls = [call for call in freebsd.called("env") if " install " in call]
    return [word for call in calls for word in call.split(" install -q ")[1].split()]


def test_what_is_missing_is_installed_at_once(freebsd: FreeBSD) -> None:
    freebsd.install("py311-numpy", "python311")
    status, output = freebsd.run("packages")
    assert status == 0, output
    assert set(installs(freebsd)) == {name for name in OFFERED if name.startswith("py311-")} - {
        "py311-numpy"
    }
    assert len([call for call in freebsd.called("env") if " install " in call]) == 1


def test_nothing_is_installed_where_all_is_there(freebsd: FreeBSD) -> None:
    freebsd.install(*OFFERED)
    status, output = freebsd.run("packages")
    assert status == 0, output
    assert line(output, "ok", "packages").endswith("all are installed")
    assert not installs(freebsd)


def test_rust_is_installed_only_where_something_must_be_built_by_it(freebsd: FreeBSD) -> None:
    freebsd.offer(*(name for name in OFFERED if "hypothesis" not in name and "uvloop" not in name))
    status, output = freebsd.run("packages")
    assert status == 0, output
    assert "rust" in installs(freebsd)
    warnings = [each for each in output.splitlines() if each.startswith("warning")]
    assert [each.split("has no ")[1] for each in warnings] == [
        "py311-uvloop; pip will build it",
        "py311-hypothesis; pip will build it",
    ]


def test_without_root_what_to_install_is_said(freebsd: FreeBSD) -> None:
    freebsd.command("id", "echo 1001")
    freebsd.install(*(name for name in OFFERED if name != "py311-numpy"))
    status, output = freebsd.run("packages")
    assert status == 2
    assert line(output, "FAILED", "packages").endswith("as root: pkg install py311-numpy")


def test_a_pkg_that_is_not_set_up_is_bootstrapped(freebsd: FreeBSD) -> None:
    freebsd.command("pkg", PKG.format(activated=1, state=freebsd.place))
    status, output = freebsd.run("packages")
    assert status == 0, output
    assert "ASSUME_ALWAYS_YES=yes pkg bootstrap" in freebsd.called("env")


def test_a_python_without_kqueue_is_refused(freebsd: FreeBSD) -> None:
    freebsd.command("python3.11", "exit 1")
    status, output = freebsd.run("packages")
    assert status == 2
    assert "no select.kqueue" in line(output, "FAILED", "kqueue")


def test_tests_and_comparison_run_by_ci_with_the_packages_of_the_system(freebsd: FreeBSD) -> None:
    status, output = freebsd.run("test", "compare")
    assert status == 0, output
    assert freebsd.called("env") == [
        "POLLMARK_SYSTEM_SITE=1 PYTHON=python3.11 ci/test --junit-xml=build/ci/junit.xml"
        " --skip-matrix=build/ci/skip-matrix.txt",
        "POLLMARK_SYSTEM_SITE=1 PYTHON=python3.11 ci/compare --quick --out build/ci/report",
    ]


def test_tests_that_fail_end_it_with_their_status(freebsd: FreeBSD) -> None:
    freebsd.command("env", "exit 5")
    status, output = freebsd.run("test", "compare")
    assert status == 5
    assert "--- compare" not in output


def test_a_dry_run_changes_nothing_and_says_everything(freebsd: FreeBSD) -> None:
    freebsd.command("mkdir", "")
    status, output = freebsd.run("--dry-run", "--tune")
    assert status == 0, output
    for words in (
        "sysctl kern.ipc.soacceptqueue=4096",
        "ifconfig lo0 alias 127.0.0.9 netmask 255.255.255.255",
        "pkg update -q",
        "env ASSUME_ALWAYS_YES=yes pkg install -q py311-gevent",
        "ci/test --junit-xml=build/ci/junit.xml",
        "ci/compare --quick",
    ):
        assert f"would run: {words}" in output or words in output
    assert not freebsd.called("env")
    assert not freebsd.called("mkdir")
    assert not [call for call in freebsd.called("sysctl") if not call.startswith("-n ")]
    assert not [call for call in freebsd.called("pkg") if call.startswith(("install", "update"))]


def test_a_dry_run_on_another_system_goes_on_and_fails_at_the_end(freebsd: FreeBSD) -> None:
    freebsd.command("uname", UNAME.format(system="Linux", release="6.18"))
    freebsd.command("pkg", "exit 127")
    status, output = freebsd.run("--dry-run")
    assert status == 2
    assert "FAILED   system" in output
    assert "would run: env POLLMARK_SYSTEM_SITE=1 PYTHON=python3.XY ci/test" in output


def test_what_it_does_not_know_is_named(freebsd: FreeBSD) -> None:
    status, output = freebsd.run("--fast")
    assert status == 2
    assert "'--fast'" in output
    assert not freebsd.called("uname")


def test_help_is_the_head_of_the_script(freebsd: FreeBSD) -> None:
    status, output = freebsd.run("--help")
    assert status == 0
    assert output.startswith("From a bare FreeBSD")
    assert "set -u" not in output
