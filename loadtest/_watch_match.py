"""Sets what a watcher reported against what happened: told, coalesced, lost, not true.

What this file is
-----------------
Pure arithmetic.  Each path is judged by itself: its facts in the order of their time, its reports
in the order in which they came.  A report can tell a fact that began before it came.  As many as
possible are paired; a report that could tell the fact exactly goes before one that tells it fairly
(a rename as its deletion and creation), and that before one that tells it as something else.  A
fact that no report is left for is

*   coalesced, where the path was reported afterwards, or the end of a directory above: whoever
    looks then sees the truth, only not how often it changed;
*   lost, where nothing of that kind came; and "left wrong" besides, unless the name came and went
    in the meantime, so that not knowing of it does no harm.

A report that no fact is left for is allowed (_watch_journal.py), or else a duplicate, where the
path has facts that it could tell; or of the wrong name, where nothing that happened to this path
before could be meant.

A latency is the time from the beginning of the call to the first report of its path after that,
whichever report is counted for it: from then on whoever looks knows.

Reports are out of order where one tells of something that was done before what an earlier one
told of already.  Only such are looked at of which a path has as many as facts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from loadtest._watch_journal import END, Expected, Fact


class Report(NamedTuple):
    """One thing that a watcher said of one path; a rename is two of them."""

    #: When it was received, in ns.  Reports are in the order in which they came.
    time: int
    #: created, modified, deleted, attributes, moved from, moved to
    what: str
    path: str


#: What tells a fact: exactly, fairly, and as something that it was not.
TELLS: Final[dict[str, tuple[frozenset[str], frozenset[str], frozenset[str]]]] = {
    what: (frozenset(exactly), frozenset(fairly), frozenset(wrongly))
    for what, exactly, fairly, wrongly in (
        ("created", {"created"}, {"moved to"}, {"modified", "attributes"}),
        ("modified", {"modified"}, set(), {"created", "attributes", "moved to"}),
        ("deleted", {"deleted"}, {"moved from"}, {"modified", "attributes"}),
        ("attributes", {"attributes"}, set(), {"modified", "created"}),
        ("gone", {"moved from"}, {"deleted"}, {"modified", "attributes"}),
        ("came", {"moved to"}, {"created"}, {"modified", "attributes"}),
        ("replaced", {"moved to", "modified"}, {"created"}, {"attributes"}),
    )
}
EXACTLY, FAIRLY, WRONGLY, COALESCED = range(4)
TELLS_OF_ENDS: Final = {"deleted", "moved from"}
#: How many reports of wrong names are kept.
EXAMPLES: Final = 20
#: Facts after which the path is not there, and those before which it was not.
_ENDS: Final = {"deleted", "gone"}
_BEGINS: Final = {"created", "came"}


@dataclass
class Count:
    """What became of the facts of one phase, or of one kind of operation."""

    facts: int = 0
    told: int = 0
    #: Of those told: a rename as deletion and creation; as something that it was not.
    halves: int = 0
    misnamed: int = 0
    coalesced: int = 0
    lost: int = 0
    #: Of those lost: who trusts the watcher has a wrong picture at the end.
    wrong: int = 0
    #: ns of every fact that was told or coalesced.
    latencies: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, int]:
        return {key: value for key, value in vars(self).items() if key != "latencies"}


@dataclass
class Matched:
    """All that can be said of one watcher's reports."""

    #: By phase, and by kind of operation.
    phases: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    kinds: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    #: By phase, how many reports were ...
    reports: Counter[str] = field(default_factory=Counter)
    duplicated: Counter[str] = field(default_factory=Counter)
    allowed: Counter[str] = field(default_factory=Counter)
    wrong_name: Counter[str] = field(default_factory=Counter)
    out_of_order: Counter[str] = field(default_factory=Counter)
    #: Some of the reports of wrong names, for people.
    examples: list[Report] = field(default_factory=list)
    #: By phase: when the first fact began, and when the last one that became known did so.  What
    #: marks the end does not count.
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)


def match(
    expected: Expected,
    reports: Sequence[Report],
    phase_of: Sequence[str],
    kind_of: Sequence[str],
    directories: Iterable[str] = (),
) -> Matched:
    """Judge `reports`; `phase_of` and `kind_of` are by operation.

    That something changed in one of `directories` is no wrong report.
    """
    return _Judge(expected, reports, phase_of, kind_of, set(directories)).judge()


class _Judge:
    """One matching; `judge` does it."""

    def __init__(
        self,
        expected: Expected,
        reports: Sequence[Report],
        phase_of: Sequence[str],
        kind_of: Sequence[str],
        directories: set[str],
    ) -> None:
        self._expected = expected
        self._reports = reports
        self._phase_of = phase_of
        self._kind_of = kind_of
        self._directories = directories
        self._result = Matched()
        #: (position of the report, operation) of what can only be told by it.
        self._told: list[tuple[int, int]] = []
        self._begins = _begins(expected.facts, phase_of)
        self._ends: dict[str, int] = {}
        #: How many causes of what is allowed have been used up.
        self._used: Counter[tuple[str, str]] = Counter()
        #: When a path ended for the last time, and when its end was reported.
        self._gone = {fact.path: fact.begin for fact in expected.facts if fact.what in _ENDS}
        self._ended: dict[str, list[int]] = defaultdict(list)

    def judge(self) -> Matched:
        by_path: dict[str, list[Fact]] = defaultdict(list)
        for fact in self._expected.facts:
            by_path[fact.path].append(fact)
        said: dict[str, list[int]] = defaultdict(list)
        for position, report in enumerate(self._reports):
            said[report.path].append(position)
            if report.what in TELLS_OF_ENDS:
                self._ended[report.path].append(report.time)
        for path, facts in by_path.items():
            self._path(facts, said.pop(path, []))
        for positions in said.values():  # nothing happened to these paths
            for position in positions:
                self._surplus(self._reports[position], None, frozenset())
        _disorder(self._told, self._phase_of, self._result.out_of_order)
        for report in self._reports:
            self._result.reports[_phase(report.time, self._begins)] += 1
        self._result.spans = {
            phase: (begin, self._ends.get(phase, begin)) for begin, phase in self._begins
        }
        del self._result.examples[EXAMPLES:]
        return self._result

    def _path(self, facts: Sequence[Fact], positions: Sequence[int]) -> None:
        """Judge all that happened to one path, and was reported of it."""
        reports = [self._reports[position] for position in positions]
        pairs, left = _pair(facts, reports)
        times = [report.time for report in reports]
        clear = _unambiguous(facts, reports)
        lost = []
        for fact, pair in zip(facts, pairs, strict=True):
            known = self._known(fact, times)
            if pair is not None:
                number, level = pair
                assert known is not None  # by this report, if not by one before
                self._count(fact, known, level)
                if reports[number].what in clear:
                    self._told.append((positions[number], fact.operation))
            elif known is not None:
                self._count(fact, known, COALESCED)
            else:
                lost.append(fact)
        self._lose(lost)
        if left:
            tellable = frozenset(
                what for fact in facts for level in TELLS[fact.what][:2] for what in level
            )
            for number in left:
                self._surplus(reports[number], facts[0].begin, tellable)

    def _counts(self, fact: Fact) -> tuple[Count, Count]:
        operation = fact.operation
        result = self._result
        return result.phases[self._phase_of[operation]], result.kinds[self._kind_of[operation]]

    def _count(self, fact: Fact, time: int, level: int) -> None:
        """`fact` became known at `time`, and was told so well."""
        for count in self._counts(fact):
            count.facts += 1
            count.told += level != COALESCED
            count.halves += level == FAIRLY
            count.misnamed += level == WRONGLY
            count.coalesced += level == COALESCED
            count.latencies.append(time - fact.begin)
        if self._kind_of[fact.operation] != END:
            phase = self._phase_of[fact.operation]
            self._ends[phase] = max(time, self._ends.get(phase, 0))

    def _known(self, fact: Fact, times: Sequence[int]) -> int | None:
        """When a report first said, after the fact, to look at its path; None where none did."""
        found = []
        if (at := bisect_left(times, fact.begin)) < len(times):
            found.append(times[at])
        if fact.what in _ENDS and self._ended:
            above = fact.path
            while above := above.rpartition("/")[0]:
                ended = self._ended.get(above, ())
                if (at := bisect_left(ended, fact.begin)) < len(ended):
                    found.append(ended[at])
        return min(found, default=None)

    def _lose(self, lost: Sequence[Fact]) -> None:
        """Count the lost facts of one path, which are its last ones."""
        harmless = (
            bool(lost)
            and lost[0].what in _BEGINS
            and (lost[-1].what in _ENDS or self._ends_above(lost[-1]))
        )
        for fact in lost:
            for count in self._counts(fact):
                count.facts += 1
                count.lost += 1
                count.wrong += not harmless

    def _ends_above(self, fact: Fact) -> bool:
        """Whether a directory above was removed or moved away after `fact`."""
        above = fact.path
        while above := above.rpartition("/")[0]:
            if self._gone.get(above, 0) > fact.begin:
                return True
        return False

    def _surplus(self, report: Report, since: int | None, tellable: frozenset[str]) -> None:
        """Count a report that no fact is left for; `since` is when its path's first one began."""
        result, phase = self._result, _phase(report.time, self._begins)
        causes = self._expected.allowed.get((report.what, report.path), ())
        used = self._used[report.what, report.path]
        if used < len(causes) and causes[used] <= report.time:
            self._used[report.what, report.path] += 1
            result.allowed[phase] += 1
        elif report.path in self._directories and report.what in ("modified", "attributes"):
            result.allowed[phase] += 1
        elif (since is not None and since <= report.time and report.what in tellable) or (
            causes and causes[0] <= report.time
        ):
            result.duplicated[phase] += 1
        else:
            result.wrong_name[phase] += 1
            result.examples.append(report)


def _pair(
    facts: Sequence[Fact], reports: Sequence[Report]
) -> tuple[list[tuple[int, int] | None], list[int]]:
    """One path: for each fact (its report's number, how well it tells) or None; the left reports.

    As many pairs as the times allow, level by level: each fact in turn takes the first report that
    can tell it, as that is of the least use to those after it.
    """
    if len(facts) == len(reports) and all(
        report.time >= fact.begin and report.what in TELLS[fact.what][EXACTLY]
        for fact, report in zip(facts, reports, strict=True)
    ):  # what is usual, and what the general way below finds too
        return [(number, EXACTLY) for number in range(len(facts))], []
    pairs: list[tuple[int, int] | None] = [None] * len(facts)
    free = list(range(len(reports)))
    for level in (EXACTLY, FAIRLY, WRONGLY):
        for what in {reports[number].what: None for number in free}:
            fitting = iter([number for number in free if reports[number].what == what])
            taken = set()
            for index, fact in enumerate(facts):
                if pairs[index] is None and what in TELLS[fact.what][level]:
                    # One that is too early for this fact is so for all that follow.
                    number = next((n for n in fitting if reports[n].time >= fact.begin), None)
                    if number is None:
                        break
                    pairs[index] = (number, level)
                    taken.add(number)
            free = [number for number in free if number not in taken]
    return pairs, free


def _unambiguous(facts: Sequence[Fact], reports: Sequence[Report]) -> set[str]:
    """Which reports of a path come as often as what they tell: each can mean one fact."""
    happened = Counter(what for fact in facts for what in TELLS[fact.what][EXACTLY])
    return {
        what for what, times in Counter(r.what for r in reports).items() if happened[what] == times
    }


def _begins(facts: Sequence[Fact], phase_of: Sequence[str]) -> list[tuple[int, str]]:
    """(time, phase) of the first fact of each phase, in order."""
    first: dict[str, int] = {}
    for fact in facts:
        first.setdefault(phase_of[fact.operation], fact.begin)
    return sorted((begin, phase) for phase, begin in first.items())


def _phase(time: int, begins: Sequence[tuple[int, str]]) -> str:
    found = begins[0][1] if begins else ""
    for begin, phase in begins:
        if begin > time:
            break
        found = phase
    return found


def _disorder(
    told: list[tuple[int, int]], phase_of: Sequence[str], out_of_order: Counter[str]
) -> None:
    """Count the reports that tell of something older than an earlier one told of."""
    told.sort()
    newest = -1
    for _, operation in told:
        if operation < newest:
            out_of_order[phase_of[operation]] += 1
        newest = max(newest, operation)
