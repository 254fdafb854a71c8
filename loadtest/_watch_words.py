"""What the analysis of watchers means, in sentences: who takes in most, and where each one lies.

Pure.  A watcher lies where whoever trusts its reports has a wrong picture, or knows less than they
seem to say.  What is said of one is said from its counts alone, whoever made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from loadtest._verdict import difference, ratio
from loadtest._watch_cells import SETTLE
from loadtest._watch_figures import BACKLOG, FRESH
from loadtest._watch_rows import BASELINE, CONTROL

Row = Mapping[str, Any]

#: Of these ratios less is better.
LESS: Final = ("latency", "cost")

#: A part of its facts that makes a kind of operation worth a sentence.
SOME, MOST = 0.02, 0.6
#: Kinds that have sentences of their own; the phases that are no test of the truth.
_OWN: Final = (
    *("append x5", "mmap write"),
    *("flood", "hold", "backlog", "burst", "burst create", "end"),
)
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
    """Who takes in most, who tells first, and what it costs, against the baseline."""
    table = {one["key"]: one for one in load["rows"]}
    base = table[BASELINE]
    if load["basis"] is None:
        return [f"Nothing is compared: the baseline is {base['status']}: {base['reason']}."]
    rows = load["rows"]
    said = [_taken(rows, base), *_fresh(rows, base), *_sustained(rows, base)]
    return [*said, _first(rows, base), *_cost(rows, base), *_control(table.get(CONTROL))]


def _ranked(rows: Sequence[Row], name: str) -> list[Row]:
    return [one for one in rows if one["status"] == "ok" and one[name] and one["key"] != CONTROL]


def _best_peer(ranked: Sequence[Row], name: str) -> Row | None:
    """The peer with the best ratio of that name."""
    best = min if name in LESS else max
    peers = [one for one in ranked if one["peer"]]
    return best(peers, key=lambda one: float(one[name]["median"]), default=None)


def _times(row: Row, name: str, what: str) -> str:
    word = difference(row[name], "cost" if name in LESS else "ratio")
    return f"{ratio(row[name])} x {what} ({word})"


def _taken(rows: Sequence[Row], base: Row) -> str:
    """How fast a watcher is where nobody else sets the pace."""
    ranked = sorted(_ranked(rows, "rate"), key=lambda one: -float(one["rate"]["median"]))
    lost = sum(one["lost"] for name, one in base["phases"].items() if name.startswith(BACKLOG))
    loss = f"losing {lost:,}" if lost else "without loss"
    text = f"{base['label']} takes in {base['taken']:,.0f} changes a second of a backlog {loss}"
    if best := _best_peer(ranked, "rate"):
        text += f"; the fastest peer, {best['label']}, {_times(best, 'rate', 'that')}"
    faster = [
        one for one in ranked if not one["peer"] and difference(one["rate"], "ratio") == "better"
    ]
    if faster:
        names = ", ".join(f"{one['label']} {ratio(one['rate'])} x" for one in faster)
        text += f". Faster of ours: {names}"
    return text + "."


def _fresh(rows: Sequence[Row], base: Row) -> list[str]:
    """The same of files that it cannot remember."""
    if base not in (ranked := _ranked(rows, "fresh")):
        return []
    text = "Where each file is written for the first time, it takes in "
    text += f"{base['fresh_taken']:,.0f} a second"
    if best := _best_peer(ranked, "fresh"):
        text += f"; {best['label']} {_times(best, 'fresh', 'that')}"
    return [text + "."]


def _sustained(rows: Sequence[Row], base: Row) -> list[str]:
    """How fast it is while somebody writes."""
    if base not in (ranked := _ranked(rows, "sustaining")):
        return []
    flood = base["phases"]["flood"]
    loss = f"losing {flood['lost']:,} of {flood['facts']:,}" if flood["lost"] else "without loss"
    text = f"While a writer writes, it sustains {base['sustained']:,.0f} changes a second {loss}"
    if base["limit"] == "writer":
        text += ", and more: the writer could do no more"
    if best := _best_peer(ranked, "sustaining"):
        text += f"; {best['label']} {_times(best, 'sustaining', 'that')}"
        if best["limit"] == "writer":
            text += ", which the writer limited"
    return [text + "."]


def _first(rows: Sequence[Row], base: Row) -> str:
    text = f"Half of the changes are known within {milliseconds(base['p50'])} ms ({base['label']})"
    if best := _best_peer(_ranked(rows, "latency"), "latency"):
        text += f"; the quickest peer, {best['label']}, needs {_times(best, 'latency', 'as long')}"
    return text + "."


def _cost(rows: Sequence[Row], base: Row) -> list[str]:
    if base not in (ranked := _ranked(rows, "cost")):
        return []
    text = f"{base['label']} takes {base['cpu']:,.1f} us of CPU for a change"
    if best := _best_peer(ranked, "cost"):
        text += f"; the cheapest peer, {best['label']}, {_times(best, 'cost', 'that')}"
    return [text + "."]


def _control(control: Row | None) -> list[str]:
    if control is None or not control["rate"] or not control["latency"]:
        return ["The A/A control has no figures: how stable the machine was is not known."]
    rate, latency = control["rate"], control["latency"]
    text = f"A/A: the same watcher again takes in {ratio(rate)} x, with latencies of "
    text += f"{ratio(latency)} x; "
    if rate["smallest"] is None or latency["smallest"] is None:
        return [text + "one round cannot tell noise from a difference."]
    return [
        f"{text}differences below {rate['smallest']:.1%} and {latency['smallest']:.1%} could not "
        "have been shown."
    ]


def lies(row: Row) -> list[str]:
    """Where one watcher lies, the worst first; what it tells right is not said."""
    if row["status"] not in ("ok", "emulated"):
        return [f"{row['status']}: {row['reason']}"]
    kinds, journal = row["kinds"], row["phases"].get("journal", dict.fromkeys(_NAMES, 0))
    said = [*_lost(kinds), *_mapped(kinds, row), *_flood(row), *_burst(row), *_late(row)]
    if journal["wrong_name"]:
        example = f" ({row['wrong_names'][0]})" if row["wrong_names"] else ""
        said.append(f"names what nothing had happened to {journal['wrong_name']:,} times{example}")
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
    return said or [_little(journal)]


#: What is counted of the journal, and said where it is too little for a sentence of its own.
_LITTLE: Final = {
    "lost": "lost",
    "misnamed": "told as something else",
    "halves": "renames in halves",
    "coalesced": "told by a later report",
    "duplicated": "told twice",
    "out_of_order": "out of order",
}
_NAMES: Final = ("told", "wrong_name", "reports", "facts", *_LITTLE)


def _little(journal: Mapping[str, int]) -> str:
    """What there is to say where nothing of the journal is worth a sentence."""
    parts = [f"{journal[name]:,} {words}" for name, words in _LITTLE.items() if journal[name]]
    if not parts:
        return "told everything, once and in order"
    return f"told nearly everything: of {journal['facts']:,} facts {listed(parts)}"


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


def _flood(row: Row) -> list[str]:
    said = []
    if (flood := row["phases"].get("flood")) and flood["lost"]:
        said.append(
            f"loses {flood['lost']:,} of {flood['facts']:,} also where the writer waits for it"
        )
    backlogs = [one for name, one in row["phases"].items() if name.startswith((BACKLOG, FRESH))]
    if lost := sum(one["lost"] for one in backlogs):
        facts = sum(one["facts"] for one in backlogs)
        said.append(f"loses {lost:,} of {facts:,} that half of the kernel's queue had room for")
    return said


def _late(row: Row) -> list[str]:
    """Phases whose end it did not report in time, so that the next one began too early."""
    late = [
        f"{row['rounds'] - row['phases'][name]['ended']} times of the {name}"
        for name in row["phases"]
        if name != "burst" and row["phases"][name]["ended"] < row["rounds"]
    ]
    return [f"the end {listed(late)} was not told within {SETTLE:.0f} s"] if late else []


def _burst(row: Row) -> list[str]:
    burst, rounds = row["phases"].get("burst"), row["rounds"]
    if burst is None:
        return []
    number = f"{burst['operations'] // rounds:,}" if rounds else "many"
    said = "it says so" if row["overflows"] else "it does not say so"
    if burst["lost"]:
        part = f"{burst['lost'] / burst['facts']:.1%}"
        if burst["telling"]:  # nobody knows how much of it would still have come
            return [
                f"of a burst of {number} {part} is not told {SETTLE:.0f} s later, while reports "
                f"still come ({burst['telling']} of {rounds} rounds)"
            ]
        return [f"of a burst of {number} it loses {part} for good, and {said}"]
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
