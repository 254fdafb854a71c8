"""results.json: everything that a run found, so that it can be read again and checked.

schema      the number below; another one is refused
kind        "pollmark compare"
environment what _environment.py found; options, seed: what was asked
cells       the matrix; schedule: the order of each round; unavailable: key -> reason
rounds      finished ones: number, seconds, measurements by key, each as it was written, with
            its raw histograms
unfinished  the measurements of a round that was cut short (they are not analysed), or null
stopped     why the run ended early, "" where it did not
analysis    what _analyse.py made of it
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from loadtest._workload import DISK, WATCH

SCHEMA: Final = 1
KIND: Final = "pollmark compare"
#: The schema of one measurement, which EchoSwarm writes.
MEASUREMENT_SCHEMA: Final = 1

_KEYS: Final = {
    "started": str,
    "environment": dict,
    "options": dict,
    "seed": int,
    "cells": list,
    "schedule": list,
    "unavailable": dict,
    "rounds": list,
    "stopped": str,
    "analysis": dict,
}
#: What a measurement with figures must have, by its cell's workload; this where Locust wrote it.
_FIGURES: Final = {
    "cell": dict,
    "ready": dict,
    "attestation": dict,
    "seconds": (int, float),
    "messages": int,
    "throughput": (int, float),
    "errors": dict,
    "latency": dict,
    "fairness": dict,
    "server": dict,
    "client": dict,
    "bound": str,
    "warm_up": dict,
    "notes": list,
}
_STANDALONE_FIGURES: Final[dict[str, Mapping[str, Any]]] = {
    DISK.name: {
        "cell": dict,
        "seconds": (int, float),
        "reads": int,
        "throughput": (int, float),
        "latency": dict,
        "reader": dict,
        "checked": dict,
        "warm_up": dict,
        "notes": list,
    },
    WATCH.name: {"cell": dict, "ready": dict, "holds": dict, "phases": dict, "kinds": dict},
}


class BadResults(ValueError):
    """The file is not what it should be; `str()` is one line."""


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write the file whole or not at all.  Raises OSError."""
    whole = {"schema": SCHEMA, "kind": KIND, **results}
    replace(path, json.dumps(whole, indent=1, allow_nan=False) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a text file whole or not at all.  Raises OSError."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def load(path: Path) -> dict[str, Any]:
    """Read and check a results.json.  Raises OSError, or BadResults."""
    data = _parse(path)
    if data.get("kind") != KIND:
        raise BadResults(f"{path} is no result of `python -m loadtest compare`")
    if data.get("schema") != SCHEMA:
        raise BadResults(
            f"{path} has schema {data.get('schema')!r}, this version reads {SCHEMA}: "
            "use the version of pollmark that wrote it"
        )
    _check(path, data, _KEYS)
    for one in data["rounds"]:
        for measurement in one["measurements"].values():
            check_measurement(path, measurement)
    return data


def load_measurement(path: Path) -> dict[str, Any]:
    """Read and check what one measurement wrote.  Raises OSError, or BadResults."""
    data = _parse(path)
    check_measurement(path, data)
    return data


def check_measurement(path: Path, data: Mapping[str, Any]) -> None:
    """Raise BadResults unless `data` is a measurement of the schema that is understood here."""
    if data.get("schema") != MEASUREMENT_SCHEMA:
        raise BadResults(
            f"{path}: a measurement of schema {data.get('schema')!r}, "
            f"not {MEASUREMENT_SCHEMA}: the locustfile and the comparator differ in version"
        )
    if "unavailable" not in data and "failed" not in data:
        cell = data.get("cell")
        workload = cell.get("workload") if isinstance(cell, dict) else None
        _check(path, data, _STANDALONE_FIGURES.get(str(workload), _FIGURES))


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise BadResults(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadResults(f"{path} holds no JSON object")
    return data


def _check(path: Path, data: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    for key, kind in keys.items():
        if not isinstance(data.get(key), kind):
            raise BadResults(f"{path}: {key!r} is missing or of another type than it should be")
