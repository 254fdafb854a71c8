"""What the analysis of watchers means, in sentences: who sustains most, and where each one lies.

Pure.  A watcher lies where whoever trusts its reports has a wrong picture, or knows less than they
seem to say.  What is said of one is said from its counts alone, whoever made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from loadtest._verdict import difference, ratio
from loadtest._watch_rows import BASELINE, CONTROL

Row = Mapping[str, Any]

#: A part of its facts that makes a kind of operation worth a sentence.
SOME, MOST = 0.02, 0.6
#: Kinds that have sentences of their own; the phases that are no test of the truth.
_OWN: Final = ("append x5", "mmap write", "flood", "hold", "burst", "burst create", "end")
_RENAMES: Final = ("rename over", "rename across", "rename directory")


def whole(analysis: Mapping[str, Any]) -> list[str]:
    """What holds for the run."""
    rounds = analysis["rounds"]
    if not rounds:
        return ["No round was finished: there is nothing to compare."]
    said = []
    if not analysis["stable"]:
        said.append(
            "UNSTABLE: the same watcher measured twice (A/A) differs. No ratio below can be "
            "trusted; close other programs and run again, with more rounds."
        )
    if rounds == 1:
        said.append("One round: a ratio without an interval shows no difference.")
    elif analysis["interval"] == "bootstrap":
        said.append(
            f"{rounds} rounds. [low, high] is at least the 95 % bootstrap interval of the median "
            "ratio, and never less than the run's noise."
        )
    else:
        said.append(
            f"{rounds} rounds. [low, high] spans at least the rounds' ratios, and never less than "
            f"the run's noise. The ratios alone hold the true median with "
            f"{analysis['coverage']:.0%} only: six rounds or more give 95 %."
        )
    return said


def headlines(load: Mapping[str, Any]) -> list[str]:
    """Who sustains most, who tells first, and what it costs, against the baseline."""
    table = {one["key"]: one for one in load["rows"]}
    base = table[BASELINE]
    if load["basis"] is None:
        return [f"Nothing is compared: the baseline is {base['status']}: {base['reason']}."]
    said = [_sustained(load["rows"], base), _first(load["rows"], base)]
    said += _control(table.get(CONTROL))
    return said


def _ranked(rows: Sequence[Row], name: str) -> list[Row]:
    return [one for one in rows if one["status"] == "ok" and one[name] and one["key"] != CONTROL]


def _sustained(rows: Sequence[Row], base: Row) -> str:
    ranked = sorted(_ranked(rows, "rate"), key=lambda one: -float(one["rate"]["median"]))
    peers = [one for one in ranked if one["peer"]]
    text = f"{base['label']} sustains {base['sustained']:,.0f} changes a second without loss"
    if base["limit"] == "writer":
        text += ", and more: the writer could do no more"
    if peers:
        best = peers[0]
        word = difference(best["rate"], "ratio")
        text += f"; the fastest peer, {best['label']}, {ratio(best['rate'])} x that ({word})"
        if best["limit"] == "writer":
            text += ", which the writer limited"
    faster = [
        one for one in ranked if not one["peer"] and difference(one["rate"], "ratio") == "better"
    ]
    if faster:
        names = ", ".join(f"{one['label']} {ratio(one['rate'])} x" for one in faster)
        text += f". Faster of ours: {names}"
    return text + "."


def _first(rows: Sequence[Row], base: Row) -> str:
    ranked = sorted(_ranked(rows, "latency"), key=lambda one: float(one["latency"]["median"]))
    peers = [one for one in ranked if one["peer"]]
    text = f"Half of the changes are known within {milliseconds(base['p50'])} ms ({base['label']})"
    if peers:
        best = peers[0]
        word = difference(best["latency"], "cost")
        text += (
            f"; the quickest peer, {best['label']}, needs {ratio(best['latency'])} x as long "
            f"({word})"
        )
    return text + "."


def _control(control: Row | None) -> list[str]:
    if control is None or not control["rate"] or not control["latency"]:
        return []
    return [
        f"A/A: the same watcher again sustains {ratio(control['rate'])} x, with latencies of "
        f"{ratio(control['latency'])} x."
    ]


def lies(row: Row) -> list[str]:
    """Where one watcher lies, the worst first; what it tells right is not said."""
    if row["status"] not in ("ok", "emulated"):
        return [f"{row['status']}: {row['reason']}"]
    kinds, journal = row["kinds"], row["phases"].get("journal", dict.fromkeys(_NAMES, 0))
    said = [*_lost(kinds), *_mapped(kinds, row), *_burst(row)]
    if journal["wrong_name"]:
        example = f" ({row['wrong_names'][0]})" if row["wrong_names"] else ""
        said.append(
            f"{journal['wrong_name']:,} reports name what nothing had happened to{example}"
        )
    said += _renames(kinds)
    misnamed = [
        kind for kind, one in kinds.items() if kind not in _OWN and one["misnamed"] > _some(one)
    ]
    if misnamed:
        said.append(f"tells of {listed(misnamed)} as of something else")
    if journal["told"] and journal["out_of_order"] > SOME * journal["told"]:
        share = journal["out_of_order"] / journal["told"]
        said.append(f"order is lost: {share:.0%} of what it tells comes after something later")
    said += _fives(kinds)
    if journal["reports"] and journal["duplicated"] > SOME * journal["reports"]:
        said.append(f"tells {journal['duplicated']:,} of {journal['reports']:,} reports twice")
    merged = [
        kind
        for kind, one in kinds.items()
        if kind not in _OWN and one["facts"] and one["coalesced"] > 0.1 * one["facts"]
    ]
    if merged:
        said.append(f"merges changes of one name: {listed(merged)} are told by a later report")
    return said or ["told everything, once and in order"]


_NAMES: Final = ("told", "wrong_name", "out_of_order", "reports", "duplicated")


def _some(one: Mapping[str, int]) -> float:
    return SOME * one["facts"]


def _lost(kinds: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What is not told at all, and whether it matters in the end."""
    parts, wrong = [], 0
    for kind, one in kinds.items():
        if kind not in _OWN and one["lost"] > _some(one):
            parts.append(f"{one['lost']:,} of {one['facts']:,} {kind}")
            wrong += one["wrong"]
    if not parts:
        return []
    end = (
        f"; {wrong:,} of them leave a wrong picture" if wrong else ", none of which matters later"
    )
    return [f"does not tell of {listed(parts)}{end}"]


def _mapped(kinds: Mapping[str, Mapping[str, int]], row: Row) -> list[str]:
    one = kinds.get("mmap write")
    if not one or one["lost"] < MOST * one["facts"]:
        return []
    closes = "close_write" in row["about"].get("capabilities", ())
    until = ", until the file is closed" if closes else ""
    return [f"writes through mmap are unseen{until}"]


def _burst(row: Row) -> list[str]:
    burst, rounds = row["phases"].get("burst"), row["rounds"]
    if burst is None:
        return []
    number = f"{burst['operations'] // rounds:,}" if rounds else "many"
    said = "it says so" if row["overflows"] else "it does not say so"
    if burst["lost"]:
        return [
            f"of a burst of {number} it loses {burst['lost'] / burst['facts']:.1%} for good, and "
            + said
        ]
    if row["overflows"]:
        return [
            f"a burst of {number} overflows it, which it says; looking again finds all "
            f"{row['burst_seconds']:.1f} s after the first"
        ]
    return []


def _renames(kinds: Mapping[str, Mapping[str, int]]) -> list[str]:
    halved = [
        kind
        for kind in _RENAMES
        if (one := kinds.get(kind)) and one["halves"] > MOST / 2 * max(one["told"], 1)
    ]
    return [f"a rename is a deletion and a creation ({listed(halved)})"] if halved else []


def _fives(kinds: Mapping[str, Mapping[str, int]]) -> list[str]:
    one = kinds.get("append x5")
    if not one or not one["facts"] or one["told"] > 0.9 * one["facts"]:
        return []
    return [f"5 equal writes in a row are told as {5 * one['told'] / one['facts']:.1f}"]


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def milliseconds(microseconds: float | None) -> str:
    """Three digits or so of a time."""
    if microseconds is None:
        return "-"
    value = microseconds / 1000
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"
