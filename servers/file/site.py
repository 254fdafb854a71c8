"""A Request becomes a Plan: the document root as HTTP resources, and the memo of its answers.

The memo
--------
*   The exact bytes of a request head are the key, the finished plan is the value, so that a
    repeated request costs one look-up.  Nothing has to be compared, as whatever could change the
    answer (Range, conditions, Accept-Encoding) stands in those bytes.
*   What else could change it is the file, and time.  A reported change drops the plans of its
    path.  A plan expires with its Date, at the end of the second; where changes are reported it is
    stamped anew, and elsewhere decided anew, which looks at the file.
*   It is bounded, in number and in the length of a key; the oldest goes first.  A plan is
    remembered for as long as its file is in the cache, so that it holds nothing open by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import defaultdict
from typing import Final, NamedTuple
from urllib.parse import quote

from servers.file import listing
from servers.file.cache import FileCache, OpenFile
from servers.file.changes import EVERYTHING, affected
from servers.file.plan import PHRASES, Field, Plan
from servers.file.root import Root
from servers.http import conditional, negotiate, ranges
from servers.http.conditional import Outcome
from servers.http.dates import Clock, format_date
from servers.http.request import Request
from servers.http.target import Location, decode_path
from servers.lifecycle import EXHAUSTED, RateLimit

#: Plans that are remembered, and the longest head of one, bytes.
MEMO: Final = 4096
MEMO_HEAD: Final = 2048
INDEX: Final = b"index.html"
ALLOW: Final[Field] = ("Allow", "GET, HEAD, OPTIONS")


class Site:
    """Answers requests for what is below one root."""

    def __init__(self, root: Root, cache: FileCache, *, listing: bool) -> None:
        """`listing`: whether a directory without an index is answered with its entries."""
        self.memo: dict[bytes, Plan] = {}
        #: From now on every answer is a connection's last.
        self.draining = False
        self._root = root
        self._cache = cache
        self._listing = listing
        self._clock = Clock()
        #: path -> the heads whose plans rest on it: the path asked for, and the file chosen.
        self._heads: defaultdict[bytes, set[bytes]] = defaultdict(set)
        cache.on_drop = self._forget_file
        self._limit = RateLimit()

    def recall(self, head: bytes) -> Plan | None:
        """The remembered plan of a request head, if it is still right."""
        plan = self.memo.get(head)
        if plan is None or plan.expires > time.monotonic():
            return plan
        if self._still_right(plan):
            plan.stamp(*self._clock.now())
            return plan
        self._forget(head)
        return None

    def answer(self, head: bytes, request: Request, close: bool) -> Plan:
        """Decide; `close`: the connection ends with this answer whatever it is."""
        manner = _Manner.of(request, close or self.draining)
        plan = self._decide(request, manner)
        plan.line = head.partition(b"\r\n")[0]
        if plan.path and not plan.close and not request.body and len(head) <= MEMO_HEAD:
            self._remember(head, plan)
        return plan

    def refuse(self, status: int, *, silent: bool = False) -> Plan:
        """The answer to what is no request; the connection's last.  `silent` for a HEAD."""
        return self._refusal(status, _LAST._replace(silent=silent))

    def read_changes(self) -> None:
        """Take what the watcher reports, and drop the plans that it makes wrong."""
        reported = self._cache.read_changes()
        if reported is EVERYTHING:
            self.forget_all()
        elif reported:
            for path in affected(reported, self._heads):
                self._forget_path(path)

    def forget_all(self) -> None:
        """Empty the memo."""
        self.memo.clear()
        self._heads.clear()

    def _remember(self, head: bytes, plan: Plan) -> None:
        while len(self.memo) >= MEMO:
            self._forget(next(iter(self.memo)))  # the oldest
        plan.stamp(*self._clock.now())
        self.memo[head] = plan
        for path in _rests_on(plan):
            self._heads[path].add(head)

    def _forget(self, head: bytes) -> None:
        for path in _rests_on(self.memo.pop(head)):
            heads = self._heads[path]
            heads.discard(head)
            if not heads:
                del self._heads[path]

    def _forget_path(self, path: bytes) -> None:
        for head in list(self._heads.get(path, ())):
            self._forget(head)

    def _forget_file(self, file: OpenFile) -> None:
        self._forget_path(file.path)

    def _still_right(self, plan: Plan) -> bool:
        """Whether only the Date of a plan is out of date, as every change would be reported."""
        assert plan.file is not None
        if not self._cache.covered(plan.path):
            return False
        try:
            return self._cache.open(plan.file.path) is plan.file
        except OSError:
            return False

    # -- deciding

    def _decide(self, request: Request, manner: _Manner) -> Plan:
        if request.method == "OPTIONS":
            fields = [ALLOW, ("Content-Length", "0"), *manner.fields]
            return Plan(200, fields, self._date(), close=manner.close)
        if request.method not in ("GET", "HEAD"):
            return self._refusal(405, manner, ALLOW)
        location = decode_path(request.path)
        if location is None:
            return self._refusal(404, manner)
        try:
            return self._resource(location, request, manner)
        except IsADirectoryError:
            return self._redirect(location, request, manner)
        except FileNotFoundError:
            return self._refusal(404, manner)
        except OSError as error:
            self._limit.log(f"cannot answer {request.target!r}: {error.strerror or error}")
            if error.errno in EXHAUSTED:
                return self._refusal(503, manner, ("Retry-After", "1"))
            return self._refusal(500, manner)

    def _resource(self, location: Location, request: Request, manner: _Manner) -> Plan:
        path = location.path
        if not location.directory:
            return self._file(path, request, manner)
        try:
            return self._file(path + b"/" + INDEX if path else INDEX, request, manner)
        except (FileNotFoundError, IsADirectoryError):
            if not self._listing or not self._root.is_directory(path):
                raise FileNotFoundError from None
            return self._list(path, request, manner)

    def _file(self, path: bytes, request: Request, manner: _Manner) -> Plan:
        """The plan of a file.  Raises as FileCache.open does."""
        file, fields = self._select(self._cache.open(path), request)
        fields += [
            # Never later than Date, whatever the file claims (RFC 9110 8.8.2.1).
            ("Last-Modified", format_date(min(file.modified, int(time.time()))).decode()),
            ("ETag", file.etag),
            ("Accept-Ranges", "bytes"),
            *manner.fields,
        ]
        outcome = conditional.evaluate(request.method, request.fields, file.etag, file.modified)
        if outcome is Outcome.FAILED:
            return self._refusal(412, manner)
        if outcome is Outcome.NOT_MODIFIED:
            plan = Plan(304, fields, self._date(), file=file, close=manner.close)
        else:
            kind = negotiate.media_type(path.rpartition(b"/")[2].decode("utf-8", "replace"))
            plan = self._content(file, kind, fields, request, manner)
        if plan.file is not None:
            plan.path = path
        return plan

    def _select(self, original: OpenFile, request: Request) -> tuple[OpenFile, list[Field]]:
        """The representation that the client prefers, and the fields that say which it is."""
        siblings = {}
        for coding, suffix in negotiate.ENCODINGS:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                siblings[coding] = self._cache.open(original.path + suffix.encode())
        if not siblings:
            return original, []
        vary = ("Vary", "Accept-Encoding")
        for coding in negotiate.acceptable(request.fields.get("accept-encoding")):
            if coding in siblings:
                return siblings[coding], [("Content-Encoding", coding), vary]
        return original, [vary]

    def _content(
        self, file: OpenFile, kind: str, fields: list[Field], request: Request, manner: _Manner
    ) -> Plan:
        """200, 206 or 416."""
        date, size, close = self._date(), file.size, manner.close
        wanted = None
        if "range" in request.fields and request.method == "GET":
            now = int(time.time())
            if conditional.range_applies(request.fields, file.etag, file.modified, now):
                wanted = ranges.parse(request.fields["range"], size)
        if wanted is None:
            fields += [("Content-Type", kind), ("Content-Length", str(size))]
            count = 0 if manner.silent else size
            return Plan(200, fields, date, file=file, count=count, close=close)
        if not wanted:
            return self._refusal(416, manner, ("Content-Range", f"bytes */{size}"))
        if len(wanted) == 1:
            [(offset, count)] = wanted
            fields += [
                ("Content-Type", kind),
                ("Content-Range", ranges.content_range(offset, count, size).decode()),
                ("Content-Length", str(count)),
            ]
            return Plan(206, fields, date, file=file, offset=offset, count=count, close=close)
        boundary = _boundary(file, wanted)
        first, (offset, count), *rest = ranges.multipart(wanted, size, kind, boundary)
        assert isinstance(first, bytes)
        length = ranges.length([first, (offset, count), *rest])
        fields += [
            ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
            ("Content-Length", str(length)),
        ]
        return Plan(
            *(206, fields, date),
            body=first,
            file=file,
            offset=offset,
            count=count,
            rest=rest,
            close=close,
        )

    def _redirect(self, location: Location, request: Request, manner: _Manner) -> Plan:
        """301 to the directory with its slash: a path of ours, which cannot name another host."""
        where = f"/{quote(location.path)}/"
        if request.query:
            where += "?" + request.query.decode("latin-1")
        return self._refusal(301, manner, ("Location", where))

    def _list(self, path: bytes, request: Request, manner: _Manner) -> Plan:
        shown = "/" + path.decode("utf-8", "replace") + ("/" if path else "")
        page = listing.render(shown, self._root.entries(path), not path)
        fields = [("ETag", f'"{_digest(page)}"'), *manner.fields]
        outcome = conditional.evaluate(request.method, request.fields, fields[0][1], None)
        if outcome is Outcome.FAILED:
            return self._refusal(412, manner)
        if outcome is Outcome.NOT_MODIFIED:
            return Plan(304, fields, self._date(), close=manner.close)
        fields += [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
        ]
        body = b"" if manner.silent else page
        return Plan(200, fields, self._date(), body=body, close=manner.close)

    def _refusal(self, status: int, manner: _Manner, *fields: Field) -> Plan:
        """A plan that only says its status, in plain text."""
        text = f"{status} {PHRASES[status]}\n".encode()
        said = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(text))),
            *fields,
            *manner.fields,
        ]
        body = b"" if manner.silent else text
        return Plan(status, said, self._date(), body=body, close=manner.close)

    def _date(self) -> bytes:
        return self._clock.now()[0]


class _Manner(NamedTuple):
    """How a request is answered, whatever the answer: what Connection says, and HEAD's silence."""

    close: bool
    silent: bool
    fields: list[Field]

    @classmethod
    def of(cls, request: Request, close: bool) -> _Manner:
        fields = [("Connection", "close")] if close else []
        if not close and request.version == (1, 0):  # it has to be told (RFC 9112 C.2.2)
            fields = [("Connection", "keep-alive")]
        return cls(close, request.method == "HEAD", fields)


#: Of an answer to what could not be read.
_LAST: Final = _Manner(True, False, [("Connection", "close")])


def _rests_on(plan: Plan) -> set[bytes]:
    assert plan.file is not None
    return {plan.path, plan.file.path}


def _boundary(file: OpenFile, wanted: list[tuple[int, int]]) -> str:
    """The same for the same answer; not to be guessed by who wrote the file."""
    return _digest(f"{file.etag} {wanted}".encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
