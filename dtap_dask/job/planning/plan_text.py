"""A plan as text for a person, made of the numbers of `describe.in_numbers`, so that both say the same."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dtap_dask.words import count, duration, human, visible

WIDTH = 120  # where the output goes to no terminal, and at most
Told = Mapping[str, Any]


def in_text(told: Told, width: int = WIDTH) -> str:
    """What `in_numbers` gave, as a tree with its warnings below, in lines of at most `width` where words allow it."""
    told = _printable(told)
    branches = [_source(told), _passes(told), _splits(told), _output(told), _memory(told)]
    if told["probe"]:
        branches.append(_time(told))
    lines = [f"{told['name']}  (fingerprint {told['fingerprint'][:8]})"]
    for branch in branches:
        lines += _branch(branch, width, last=branch is branches[-1])
    for warning in told["warnings"]:
        lines += textwrap.wrap(f"! {warning}", width, subsequent_indent="  ", **_WHOLE)
    return "\n".join(lines)


def _printable(told: Any) -> Any:
    """The same with no text that could control a terminal or break a line."""
    if isinstance(told, Mapping):
        return {_printable(key): _printable(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [_printable(value) for value in told]
    return visible(told, keep="") if isinstance(told, str) else told


TreeLine = tuple[str, str]
_WHOLE: Any = {"break_long_words": False, "break_on_hyphens": False}


def _branch(branch: Sequence[TreeLine], width: int, *, last: bool) -> Iterator[str]:
    first, *below = branch
    trunk = "   " if last else "│  "
    yield from _wrapped("└─ " if last else "├─ ", trunk + ("│" if below else ""), first, 12, width)
    column = max([12, *(len(name) + 2 for name, _ in below)])
    for number, line in enumerate(below, 1):
        twig = "│  " if line[0].startswith(" ") else "└─ " if number == len(below) else "├─ "
        yield from _wrapped(trunk + twig, trunk + ("" if number == len(below) else "│"), line, column, width)


def _wrapped(first: str, later: str, line: TreeLine, column: int, width: int) -> list[str]:
    start = first + line[0].ljust(column)
    return textwrap.wrap(
        line[1], width, initial_indent=start, subsequent_indent=later.ljust(len(start)), drop_whitespace=True, **_WHOLE
    )


def _source(told: Told) -> Sequence[TreeLine]:
    source = told["source"]
    files, groups, rows = source["files"], source["row_groups"], source["rows"]
    gone = files["found"] - source["kept_files"]
    lines = [
        ("source", f"{', '.join(told['paths'])}: {count(files['found'], 'file')}, {human(source['listed_bytes'])}"),
        (
            "folders",
            f"{count(source['kept_files'], 'file')} left, {f'{gone:,} never opened' if gone else 'none pruned'}"
            + "".join(f"; {name} {_partition(one)}" for name, one in told["partitions"].items()),
        ),
        (
            "statistics",
            f"{groups['read']:,} of {groups['found']:,} row groups left, {count(rows['read'], 'row')} "
            + ("before the row filter" if told["where"] else "and no filter"),
        ),
        ("columns", f"{told['columns']} needed, {human(source['bytes']['read'])} a pass"),
    ]
    if told["probe"] and told["where"]:
        lines.append(("filter", f"keeps about {told['probe']['kept']:.1%} of the rows"))
    return lines


def _partition(told: Told) -> str:
    return f"{told['type']}{'' if told['declared'] else ' (inferred)'}"


def _passes(told: Told) -> Sequence[TreeLine]:
    lines = [("passes", f"{told['passes']} over these columns")]
    for level in told["levels"]:
        lines.append((level["stage"], count(told["tasks"]["fit"], "task")))
        lines += [(f"  {step}", _few(names)) for step, names in level["steps"].items()]
    if not told["levels"] and told["tasks"]["fit"]:
        lines.append(("count", f"{count(told['tasks']['fit'], 'task')}: the rows of each part, to plan the shards"))
    least, most = told["row_groups_a_shard"].values()
    groups = f"{least} to {most} row groups" if least < most else count(least, "row group")
    lines.append(("write", f"{count(told['tasks']['write'], 'task')}; the rows of a shard come from {groups}"))
    return lines


def _splits(told: Told) -> Sequence[TreeLine]:
    output, fitted = told["output"], told["fitted"]
    about = "" if output["certainty"] == "exactly" else f"{output['certainty']} "
    each = "up to about " if output["certainty"] == "at most" else about
    lines = [("splits", f"{about}{count(output['rows'], 'row')} in {count(output['shards'], 'shard')}")]
    learns = " (fitted)" if told["levels"] else ""
    for name, part in output["parts"].items():
        size = f"{_range(part['bytes_low'], part['bytes_high'])}"
        shards = f"{count(part['shards'], 'shard')} of about {human(part['shard_bytes'])}"
        lines.append(
            (name, f"{each}{count(part['rows'], 'row')}, {size}, in {shards}{learns if name == fitted else ''}")
        )
    return lines


def _output(told: Told) -> Sequence[TreeLine]:
    output = told["output"]
    low, high = output["row_bytes"]
    size = f"{low:,.0f} B" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f} B"
    packed = output["compression"] != "none"
    before = ", before compression" if packed and not told["probe"] else ""
    kind = f"layout {output['layout']}, {len(told['features'])} columns, compression {output['compression']}"
    amount = f"{_range(output['bytes_at_least'], output['bytes_at_most'])}, {size} a row{before}"
    bound = "at most " if output["certainty"] == "at most" else "about "
    return [("output", output["path"]), ("records", kind), ("size", bound + amount)]


def _memory(told: Told) -> Sequence[TreeLine]:
    worker = told["worker"]
    of_words = f", {human(worker['vocabulary_bytes'])} of it for vocabularies" if worker["vocabulary_bytes"] else ""
    text = f"about {human(told['memory_bytes_per_thread'])} a worker thread beside the libraries{of_words}"
    on = f"{count(worker['threads'], 'worker')} of one thread would have {human(worker['memory_bytes'])} each"
    return [("memory", text), ("here", on)]


def _time(told: Told) -> Sequence[TreeLine]:
    probe, threads = told["probe"], told["worker"]["threads"]
    whole = probe["forecast_seconds"]
    rests = (
        f"measured on {probe['row_groups']:,} of {probe['row_groups_of']:,} row groups ({probe['rows']:,} rows), with "
        "one thread of this machine; starting workers and the storage's writing come on top"
    )
    if whole is None:
        rests += "; fit: dask_ml is not what was measured, so the run's time is not known"
    first = f"about {_seconds(whole)} on {count(threads, 'thread')}" if whole is not None else "not known"
    lines = [("time", first)]
    for stage, pace in probe["stages"].items():
        takes = f"about {_seconds(pace['forecast_seconds'])}, at " if pace["forecast_seconds"] is not None else ""
        lines.append((stage, f"{takes}{pace['rows_per_second']:,} rows/s a thread"))
    if probe["distinct"]:
        words = [f"{name} {_distinct(one)}" for name, one in probe["distinct"].items()]
        lines.append(("distinct", ", ".join(words)))
    return [*lines, ("rests on", rests)]


def _distinct(found: Mapping[str, int]) -> str:
    growing = found["expected"] > 2 * found["seen"]  # what grows so fast in a probe may end at any number
    return f"{'up to' if growing else 'about'} {found['expected']:,} ({found['seen']:,} seen)"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _range(low: int, high: int) -> str:
    return human(low) if human(low) == human(high) else f"{human(low)} to {human(high)}"


def _few(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
