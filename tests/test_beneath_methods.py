"""Which method of opening below a directory is taken, and that it is one that works."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

import pytest
from beneathtree import content, make_tree

from pollers import beneath
from pollers.beneath import LOOK, METHODS, method, open_beneath, why_not


def test_the_method_is_the_best_that_works() -> None:
    assert method() == next(name for name in METHODS if not why_not(name))
    assert not why_not("component by component")


def test_the_current_directory_does_not_matter(tmp_path: Path) -> None:
    """A server may be started as a user who cannot search where it was started."""
    if why_not("openat2"):
        pytest.skip(f"openat2: {why_not('openat2')}")
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(tmp_path)
            os.chmod(".", 0)
            if os.geteuid() == 0:
                os.setuid(65534)
            with contextlib.suppress(PermissionError):
                os.stat("./anything")
                os._exit(98)
            code = 0 if why_not("openat2") == "" else 97
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tmp_path.chmod(0o700)
    assert status == 0


def test_a_flag_that_the_kernel_ignores_is_not_believed() -> None:
    """Linux ignores O_RESOLVE_BENEATH, which a probe that only opens would take for success."""
    if why_not("openat2"):
        pytest.skip("this system may well have O_RESOLVE_BENEATH")
    assert "FreeBSD 13" in why_not("O_RESOLVE_BENEATH")


def test_a_filter_that_forbids_openat2_is_told(tmp_path: Path) -> None:
    """What a container's seccomp profile does, made by seccomp(2) in a child."""
    if why_not("openat2"):
        pytest.skip(f"openat2: {why_not('openat2')}")
    make_tree(tmp_path)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            if not forbid(beneath.NR_OPENAT2):
                os._exit(77)
            fd = os.open(tmp_path / "inside", LOOK | os.O_DIRECTORY)
            assert method() == "openat2"  # remembered from before; asked anew it is another
            method.cache_clear()
            assert method() == "component by component"
            assert "seccomp" in why_not("openat2")
            assert content(open_beneath(fd, b"sub/file", os.O_RDONLY)) == b"inside"
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("this system lets no process install a seccomp filter")
    assert status == 0


def forbid(number: int) -> bool:
    """Have the kernel answer EPERM to one system call of this process from now on."""

    class Instruction(ctypes.Structure):  # struct sock_filter
        _fields_ = [
            ("code", ctypes.c_uint16),
            ("jt", ctypes.c_uint8),
            ("jf", ctypes.c_uint8),
            ("k", ctypes.c_uint32),
        ]

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]

    filter_ = (Instruction * 4)(
        Instruction(0x20, 0, 0, 0),  # load seccomp_data.nr
        Instruction(0x15, 0, 1, number),  # equal: next, else skip one
        Instruction(0x06, 0, 0, 0x00050000 | errno.EPERM),  # SECCOMP_RET_ERRNO
        Instruction(0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    program = Program(4, filter_)
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    prctl(no_new_privileges, 1, 0, 0, 0)
    return int(prctl(set_seccomp, mode_filter, ctypes.addressof(program), 0, 0)) == 0
