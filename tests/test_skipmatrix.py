"""The skip matrix, on suites of a few lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

#: "fast" and "slow" are expected on this platform, "other" is not.
CONFTEST = """
import pytest
from skipmatrix import Kind, SkipMatrix, add_option

def pytest_addoption(parser):
    add_option(parser)

def kinds():
    def of(item, fixture, value):
        return value.split("+")
    return [Kind("engine", ["fast", "slow", "other"], ["fast", "slow"], of)]

def pytest_configure(config):
    config.pluginmanager.register(SkipMatrix(config, kinds), "skip-matrix")
"""

SUITE = """
import pytest

@pytest.mark.parametrize("engine", ["fast", "slow", "other"])
def test_it(engine):
    if engine in {skipped!r}:
        pytest.skip(f"no {{engine}} here")

def test_about_none_of_them():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    pytester.makeini(
        "[pytest]\ntestpaths = suite\nasyncio_default_fixture_loop_scope = function\n"
    )
    (pytester.mkdir("suite") / "conftest.py").write_text(CONFTEST)
    loaded = sys.modules["skipmatrix"]
    yield pytester
    sys.modules["skipmatrix"] = loaded  # a run takes away again what it loads


def run(suite: pytest.Pytester, *words: str, skipped: str = "", code: str = "") -> tuple[int, str]:
    """Run the suite; the exit status and all that it prints."""
    test = suite.path / "suite" / "test_suite.py"
    test.write_text(code or SUITE.format(skipped=skipped.split()))
    ended = suite.runpytest_inprocess("-p", "no:cacheprovider", *words)
    return int(ended.ret), "\n".join([*ended.outlines, *ended.errlines])


def rows(text: str) -> list[list[str]]:
    """The cells of the table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| engine")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_run_of_everything_ends_with_a_row_for_each_adapter(suite: pytest.Pytester) -> None:
    code, text = run(suite, skipped="other")
    assert code == 0, text
    assert rows(text) == [
        ["engine", "fast", "yes", "1", "0", ""],
        ["engine", "slow", "yes", "1", "0", ""],
        ["engine", "other", "no", "0", "1", "no other here"],
    ]


def test_an_expected_adapter_that_was_skipped_fails_the_run(suite: pytest.Pytester) -> None:
    code, text = run(suite, skipped="slow other")
    assert code == 1, text
    assert f"FAILED engine slow: {sys.platform} should have it, but all its tests were" in text
    assert "skipped: no slow here" in text
    assert "FAILED engine other" not in text


def test_with_several_processes_all_of_them_count(suite: pytest.Pytester) -> None:
    """As ci/test runs it: each process knows of its own tests only."""
    words = ("-n", "2", "--max-worker-restart", "0", "-o", f"pythonpath={Path(__file__).parent}")
    code, text = run(suite, *words, skipped="slow other")
    assert code == 1, text
    assert [row[1:5] for row in rows(text)] == [
        ["fast", "yes", "1", "0"],
        ["slow", "yes", "0", "1"],
        ["other", "no", "0", "1"],
    ]
    assert "FAILED engine slow" in text


def test_an_expected_adapter_without_any_test_fails_the_run(suite: pytest.Pytester) -> None:
    code, text = run(suite, code=SUITE.format(skipped=[]).replace('"slow", ', ""))
    assert code == 1, text
    assert "FAILED engine slow" in text
    assert "no test ran over it" in text


@pytest.mark.parametrize(
    "words",
    [
        ["-k", "slow"],
        ["suite"],
        ["suite/test_suite.py::test_it[slow]"],
        ["-x", "suite"],
        ["--ignore", "elsewhere"],
    ],
)
def test_a_run_of_a_part_judges_nothing(suite: pytest.Pytester, words: list[str]) -> None:
    code, text = run(suite, *words, skipped="slow")
    assert code == 0, text
    assert ["engine", "slow", "yes", "0", "1", "no slow here"] in rows(text)


def test_a_run_of_what_is_about_no_adapter_has_no_table(suite: pytest.Pytester) -> None:
    code, text = run(suite, "-k", "about_none")
    assert code == 0, text
    assert "skip matrix" not in text


def test_a_skip_is_said_of_the_adapter_that_is_not_expected(suite: pytest.Pytester) -> None:
    code, text = run(
        suite,
        code="""
import pytest

@pytest.mark.parametrize("engine", ["fast", "slow", "fast+other"])
def test_it(engine):
    if "other" in engine:
        pytest.skip("no other here")
""",
    )
    assert code == 0, text
    assert [row[1:5] for row in rows(text)] == [
        ["fast", "yes", "1", "0"],
        ["slow", "yes", "1", "0"],
        ["other", "no", "0", "1"],
    ]


def test_what_fails_ran(suite: pytest.Pytester) -> None:
    code, text = run(
        suite,
        code="""
import pytest

@pytest.fixture
def broken():
    raise OSError("no")

@pytest.mark.parametrize("engine", ["fast"])
def test_it(engine):
    assert not engine

@pytest.mark.parametrize("engine", ["slow"])
def test_before_it(engine, broken):
    pass
""",
    )
    assert code == 1, text
    assert [row[1:5] for row in rows(text)] == [
        ["fast", "yes", "1", "0"],
        ["slow", "yes", "1", "0"],
    ]


def test_the_file_has_every_row_and_what_is_at_fault(suite: pytest.Pytester) -> None:
    file = suite.path / "new" / "matrix.md"
    run(suite, f"--skip-matrix={file}", skipped="slow")
    text = file.read_text()
    assert len(rows(text)) == 3
    assert "CPython" in text.splitlines()[0] or "PyPy" in text.splitlines()[0]
    assert "FAILED engine slow" in text
    run(suite, f"--skip-matrix={file}", "-k", "slow")
    text = file.read_text()
    assert [row[3] for row in rows(text)] == ["0", "1", "0"]
    assert "FAILED" not in text
