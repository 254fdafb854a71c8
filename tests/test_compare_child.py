"""A process that answers lines: what it says wrongly is told with its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from loadtest._child import Child, Failed


def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> dict[str, Any]:
    """The first answer of a process that runs `code`."""

    async def ask() -> dict[str, Any]:
        async with Child("answering_process", {}, tmp_path / "log") as child:
            return await child.answer()

    (tmp_path / "answering_process.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return trio.run(ask)


def test_a_line_of_json_is_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(tmp_path, monkeypatch, "print('{\"ready\": true}')") == {"ready": True}


@pytest.mark.parametrize("line", ["Warning: no such thing", "[1, 2]", "\xff{"])
def test_another_line_is_failed_with_the_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Failed) as caught:
        answer(tmp_path, monkeypatch, f"print({line!r})")
    assert str(caught.value) == f"the process answered with what is no JSON object: {line}"
