"""What the analysis means, in sentences: who won, by what ratio, how sure, and why.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from loadtest import _workload

Table = Mapping[str, Mapping[str, Any]]

#: A run that could not have shown a difference of this size says so first.
NOISY: Final = 0.2

#: What a status means for the ranking.
NOT_RANKED: Final = {
    "client-bound": "client-bound",
    "emulated": "emulated",
    "errors": "too many errors",
    "mismatch": "not what it claims",
    "failed": "failed",
    "unavailable": "unavailable",
}


def whole(analysis: Mapping[str, Any]) -> list[str]:
    """What holds for the run: is it stable, and what its intervals are worth."""
    rounds = analysis["rounds"]
    if not rounds:
        return ["No round was finished: there is nothing to compare."]
    sentences = []
    if not analysis["stable"]:
        loads = [one["key"] for one in analysis["loads"] if one["stable"] is False]
        sentences.append(
            f"UNSTABLE: under {' and '.join(loads)} the same measured twice (A/A) differs. "
            "No ratio below can be trusted; close other programs and run again, with more rounds."
        )
    blind = max(
        (one["control"]["smallest"] or 0 for one in analysis["loads"] if one["control"]),
        default=0,
    )
    if blind > NOISY:
        sentences.append(
            f"NOISY: differences below {blind:.0%} could not have been shown. Something else used "
            "this machine: close other programs and run again."
        )
    if rounds == 1:
        sentences.append("One round: a ratio without an interval shows no difference.")
    elif analysis["interval"] == "bootstrap":
        sentences.append(
            f"{rounds} rounds. [low, high] is at least the 95 % bootstrap interval of the median "
            "ratio, and never less than the run's noise."
        )
    else:
        sentences.append(
            f"{rounds} rounds. [low, high] spans at least the rounds' ratios, and never less than "
            "the run's noise. The ratios alone hold the true median with "
            f"{analysis['coverage']:.0%} only: six rounds or more give 95 %."
        )
    return sentences


def of_load(load: Mapping[str, Any]) -> list[str]:
    """The verdict of one load, the headline first."""
    table: Table = {one["key"]: one for one in load["rows"]}
    basis = load["basis"]
    if basis is None:
        base = table[_workload.of(load).baseline]
        why = f"{base['status']}: {base['reason']}" if base["reason"] else "it has no figures"
        return [f"Nothing is compared: the baseline is {why}."]
    sentences = [_headline(load, table)]
    sentences += _why(load, table)
    sentences += _others(load, table)
    sentences += _cpu(load, table)
    sentences += _left_out(load, table)
    sentences += _unsteady(load) + _notes(load)
    sentences.append(_control(load))
    return sentences


def ratio(value: Mapping[str, Any] | None) -> str:
    """A ratio and its interval: "1.12 [1.09, 1.15]"."""
    if value is None:
        return "-"
    if value["rounds"] < 2:
        return f"{value['median']:.2f}"
    return f"{value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def difference(value: Mapping[str, Any], basis: str) -> str:
    """One row against the baseline: "better", "worse" or "no difference shown"."""
    if not value["shown"]:
        return "no difference shown"
    return "better" if (value["median"] > 1) == (basis == "ratio") else "worse"


def _headline(load: Mapping[str, Any], table: Table) -> str:
    basis, ranking, words = load["basis"], load["ranking"], _workload.of(load)
    base = table[_workload.of(load).baseline]["label"]
    better = [key for key in ranking if difference(table[key][basis], basis) == "better"]
    prefix = ""
    if basis == "cost":
        prefix = (
            "The load generator was the limit (client-bound), so throughput is not ranked, but "
            f"the server's CPU time per {words.unit} is. "
        )
    if not better:
        more = f"{words.did} more {words.units}"
        verb = more if basis == "ratio" else f"needed less CPU per {words.unit}"
        return f"{prefix}{base} is not beaten: nothing was shown to have {verb}."
    best = better[0]
    most = f"{words.did} the most {words.units}"
    verb = most if basis == "ratio" else f"needed the least CPU per {words.unit}"
    text = f"{prefix}{table[best]['label']} {verb}: {ratio(table[best][basis])} x {base}."
    close = [key for key in ranking if key != best and _overlap(table, best, key, basis)]
    if close:
        text += f" Not told apart from it: {_names(table, close)}."
    return text


def _overlap(table: Table, one: str, other: str, basis: str) -> bool:
    first, second = table[one][basis], table[other][basis]
    return bool(first["low"] <= second["high"] and second["low"] <= first["high"])


def _why(load: Mapping[str, Any], table: Table) -> list[str]:
    """The figures that explain the first of the ranking, beside the baseline's."""
    basis, ranking, words = load["basis"], load["ranking"], _workload.of(load)
    base = table[_workload.of(load).baseline]
    rivals = [key for key in ranking if key != words.baseline]
    if not rivals:
        return []
    best = table[rivals[0]]
    if difference(best[basis], basis) == "no difference shown":
        return []
    parts = []
    explained = [("cpu", f"us of {words.party} CPU per {words.unit}", 1)]
    if best["kernel_calls_source"] == base["kernel_calls_source"]:  # else they count other things
        adapter = base["kernel_calls_source"] == "adapter"
        calls = f"poller calls (without {words.moves})" if adapter else "kernel calls"
        explained.append(("kernel_calls", f"{calls} per {words.unit}", 2))
    explained.append(("events_per_wakeup", "events per wake-up", 0))
    for name, unit, digits in explained:
        if best.get(name) is not None and base.get(name) is not None:
            parts.append(f"{best[name]:,.{digits}f} {unit} against {base[name]:,.{digits}f}")
    return [f"Why ({best['label']} against {base['label']}): {'; '.join(parts)}."] if parts else []


def _others(load: Mapping[str, Any], table: Table) -> list[str]:
    basis, ranking, words = load["basis"], load["ranking"], _workload.of(load)
    sentences = []
    for word, title in (("no difference shown", "No difference shown"), ("worse", "Behind")):
        keys = [
            key
            for key in ranking
            if key != words.baseline and difference(table[key][basis], basis) == word
        ]
        if keys:
            list_ = ", ".join(f"{table[key]['label']} {ratio(table[key][basis])}" for key in keys)
            sentences.append(f"{title}: {list_}.")
    return sentences


def _cpu(load: Mapping[str, Any], table: Table) -> list[str]:
    """Beside a ranking by throughput: who needed less or more CPU, which repeats far better."""
    if load["basis"] != "ratio":
        return []
    words = _workload.of(load)
    sentences = []
    for word, title in (("better", "Less"), ("worse", "More")):
        found = [
            one
            for one in table.values()
            if one["status"] in ("ok", "client-bound")
            and one["key"] != words.control
            and one["cost"]
            and difference(one["cost"], "cost") == word
        ]
        found.sort(key=lambda one: float(one["cost"]["median"]))
        if found:
            parts = ", ".join(f"{one['label']} {ratio(one['cost'])}" for one in found)
            cpu = f"{words.party} CPU per {words.unit}"
            base = table[words.baseline]["label"]
            sentences.append(f"{title} {cpu} than {base}: {parts}.")
    return sentences


def _left_out(load: Mapping[str, Any], table: Table) -> list[str]:
    control = _workload.of(load).control
    left = [one for one in table.values() if one["status"] != "ok" and one["key"] != control]
    left = [one for one in left if one["key"] not in load["ranking"]]
    if not left:
        return []
    parts = [f"{one['label']} ({NOT_RANKED[one['status']]})" for one in left]
    return [f"Not ranked: {', '.join(parts)}."]


def _unsteady(load: Mapping[str, Any]) -> list[str]:
    found = [
        f"{one['label']} in {one['unsteady']} of {one['rounds']} rounds"
        for one in load["rows"]
        if one["unsteady"]
    ]
    return [f"Measured before the throughput was steady: {', '.join(found)}."] if found else []


def _notes(load: Mapping[str, Any]) -> list[str]:
    """What the measurements said of themselves."""
    whole = sum(one["rounds"] for one in load["rows"])
    found = [f"{note} ({count} of {whole})" for note, count in load["notes"].items()]
    return [f"Notes of the measurements: {'; '.join(found)}."] if found else []


def _control(load: Mapping[str, Any]) -> str:
    control = load["control"]
    if control is None:
        return "The A/A control has no figures: how stable the machine was is not known."
    if control["smallest"] is None:
        return f"A/A control: {ratio(control)}; one round cannot tell noise from a difference."
    verdict = "UNSTABLE" if control["shown"] else "stable"
    words = _workload.of(load)
    base = next(one["label"] for one in load["rows"] if one["key"] == words.baseline)
    return (
        f"A/A control ({base} twice): {ratio(control)}, {verdict}; "
        f"differences below {control['smallest']:.1%} could not have been shown."
    )


def _names(table: Table, keys: Sequence[str]) -> str:
    return ", ".join(str(table[key]["label"]) for key in keys)
