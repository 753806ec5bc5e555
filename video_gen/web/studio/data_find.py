"""What of a data set a page asks for: by words, trouble, source, size and length; and the counts that it offers to choose by."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from video_gen.web.studio.data_sets import DataSet

MOST_CHOICES = 200
QUARANTINED, REFUSED, WITHOUT, UNKNOWN = "in quarantine", "refused", "no caption", "not looked at yet"


class Asked(NamedTuple):
    words: str = ""
    """All of which its name, caption or source holds."""
    trouble: str = ""
    """A kind; `any`; empty = all that training reads, and what is in quarantine."""
    source: str = ""
    shape: str = ""
    """Such as 640x384."""
    kind: str = ""
    shortest: float = 0.0
    longest: float = 0.0
    """Seconds; 0 = no limit."""
    sort: str = "name"


def troubles_of(found: DataSet, report: Mapping[str, Any] | None, kept: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Kind -> name -> why."""
    kinds: dict[str, dict[str, str]] = {}
    for kind, rows in (report or {}).get("problems", {}).items():
        if rows:
            kinds[kind] = {name: why for name, why in rows if name in found.items}
    if kept:
        kinds[QUARANTINED] = {name: why for name, why in kept.items() if name in found.items}
    for item in found.items.values():
        if refused := item.get("refused"):
            kinds.setdefault(REFUSED, {})[item["name"]] = refused
            kinds.setdefault(f"{REFUSED}: {refused.partition(':')[0]}", {})[item["name"]] = refused
            continue
        if not item["caption"]:
            kinds.setdefault(WITHOUT, {})[item["name"]] = ""
        facts = found.facts_of(item)
        if facts is None:
            kinds.setdefault(UNKNOWN, {})[item["name"]] = ""
        elif "error" in facts:
            kinds.setdefault("unreadable", {}).setdefault(item["name"], facts["error"])
    return {kind: rows for kind, rows in kinds.items() if rows}


def found_of(
    found: DataSet, asked: Asked, report: Mapping[str, Any] | None, kept: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Those that are asked for, in the order that is asked for."""
    wanted = asked.words.casefold().split()
    names: set[str] | None = None
    if asked.trouble:
        kinds = troubles_of(found, report, kept)
        if asked.trouble == "any":
            names = {name for kind, rows in kinds.items() if kind not in (WITHOUT, UNKNOWN) for name in rows}
        else:
            names = set(kinds.get(asked.trouble, ()))
    chosen = []
    for item in found.items.values():
        if names is not None and item["name"] not in names:
            continue
        if names is None and item.get("refused"):
            continue
        if wanted:
            text = f"{item['name']} {item['caption']} {item['source']}".casefold()
            if not all(word in text for word in wanted):
                continue
        if (asked.source and item["source"] != asked.source) or (asked.kind and item["kind"] != asked.kind):
            continue
        if asked.shape and shape_of(found, item) != asked.shape:
            continue
        if asked.shortest or asked.longest:
            seconds = seconds_of(found, item)
            if seconds is None or seconds < asked.shortest or (asked.longest and seconds > asked.longest):
                continue
        chosen.append(item)
    if asked.sort == "largest":
        chosen.sort(key=lambda item: -item["bytes"])
    elif asked.sort != "name":
        sign = -1 if asked.sort == "longest" else 1
        chosen.sort(key=lambda item: (seconds_of(found, item) is None, sign * (seconds_of(found, item) or 0)))
    return chosen


def told_of(
    found: DataSet, item: dict[str, Any], report: Mapping[str, Any] | None, kept: Mapping[str, str]
) -> dict[str, Any]:
    """A clip as a page gets it."""
    facts = found.facts_of(item)
    name = item["name"]
    told = {key: value for key, value in item.items() if key not in ("facts", "packed", "frames")}
    troubles = [
        [kind, why]
        for kind, rows in (report or {}).get("problems", {}).items()
        for problem, why in rows
        if problem == name
    ]
    remarks = [line for of, lines in (report or {}).get("remarks", []) if of == name for line in lines]
    if facts is not None and "error" in facts and not any(kind == "unreadable" for kind, _ in troubles):
        troubles.append(["unreadable", facts["error"]])
    good = facts if facts is not None and "error" not in facts else None
    return told | {
        "info": good,
        "seconds": seconds_of(found, item),
        "quarantine": kept.get(name),
        "troubles": troubles,
        "remarks": remarks,
    }


def facets(found: DataSet, report: Mapping[str, Any] | None, kept: Mapping[str, str]) -> dict[str, Any]:
    """What there is to choose by: [[what, count], ...] of each."""
    files = [item for item in found.items.values() if not item.get("refused")]
    shapes = Counter(shape for item in files if (shape := shape_of(found, item)))
    sources = Counter(item["source"] for item in found.items.values() if item["source"])
    troubles = troubles_of(found, report, kept)
    length = sum(seconds_of(found, item) or 0 for item in files)
    return {
        "files": len(files),
        "length": length,
        "bytes": sum(item["bytes"] for item in files),
        "kinds": dict(Counter(item["kind"] for item in files)),
        "shapes": shapes.most_common(MOST_CHOICES),
        "sources": sources.most_common(MOST_CHOICES),
        "troubles": [[kind, len(rows)] for kind, rows in troubles.items()],
        "known": sum(found.facts_of(item) is not None for item in files),
    }


def shape_of(found: DataSet, item: dict[str, Any]) -> str:
    facts = found.facts_of(item)
    return f"{facts['width']}x{facts['height']}" if facts and "error" not in facts else ""


def seconds_of(found: DataSet, item: dict[str, Any]) -> float | None:
    if item.get("refused"):
        start, end = item["from"]
        return end - start
    facts = found.facts_of(item)
    return facts["duration"] if facts and "error" not in facts else None
