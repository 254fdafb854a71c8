"""The one thing that is raised at a client: its request was no HTTP that we can go on from."""

from __future__ import annotations


class BadRequest(Exception):
    """Answer with `status`, then close: where the next request would begin is not certain."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason  # one line, for the body and the log

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"
