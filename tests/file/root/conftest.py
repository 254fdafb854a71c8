"""The document root as an object, by every method of opening beneath that works here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pollers import beneath
from servers.file.root import Root


@pytest.fixture(params=[name for name in beneath.METHODS if not beneath.why_not(name)])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way of opening beneath that works here."""
    name: str = request.param
    monkeypatch.setattr(beneath, "method", lambda: name)
    return name


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What is served, beside files that must not be."""
    site = tmp_path / "site"
    (site / "sub" / "deep").mkdir(parents=True)
    (site / "file").write_bytes(b"inside")
    (site / "sub" / "file").write_bytes(b"inside")
    for outside in ("outside", "site-sibling"):
        (tmp_path / outside).mkdir()
        (tmp_path / outside / "file").write_bytes(b"secret")
    return site


@pytest.fixture
def root(site: Path, by: str) -> Iterator[Root]:
    with Root(str(site)) as root:
        yield root
