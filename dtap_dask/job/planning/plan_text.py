"""A plan as text for a person, made of the numbers of `describe.plan_numbers`, so that both say the same."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dtap_dask.records.folder import RUNS
from dtap_dask.words import count, duration, human, visible

WIDTH = 120  # of text that goes to no terminal, and at most
PlanNumbers = Mapping[str, Any]


def format_plan(numbers: PlanNumbers, width: int = WIDTH) -> str:
    """The numbers as a tree, with warnings below it, in lines of at most `width` as far as words allow."""
    numbers = _printable(numbers)
    branches = [_source(numbers), _passes(numbers), _splits(numbers), _output(numbers), _memory(numbers)]
    if numbers["probe"]:
        branches.append(_time(numbers))
    lines = [f"{numbers['name']}  (fingerprint {numbers['fingerprint'][:8]})"]
    for branch in branches:
        lines += _branch(branch, width, last=branch is branches[-1])
    for warning in numbers["warnings"]:
        lines += textwrap.wrap(f"! {warning}", width, subsequent_indent="  ", **_WHOLE)
    return "\n".join(lines)


def _printable(numbers: Any) -> Any:
    """The same, with escapes for all that could control a terminal or break a line."""
    if isinstance(numbers, Mapping):
        return {_printable(key): _printable(value) for key, value in numbers.items()}
    if isinstance(numbers, list | tuple):
        return [_printable(value) for value in numbers]
    return visible(numbers, keep="") if isinstance(numbers, str) else numbers


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


def _source(numbers: PlanNumbers) -> Sequence[TreeLine]:
    source = numbers["source"]
    files, groups, rows = source["files"], source["row_groups"], source["rows"]
    pruned = files["found"] - source["kept_files"]
    lines = [
        ("source", f"{', '.join(numbers['paths'])}: {count(files['found'], 'file')}, {human(source['listed_bytes'])}"),
        (
            "folders",
            f"{count(source['kept_files'], 'file')} left, {f'{pruned:,} never opened' if pruned else 'none pruned'}"
            + "".join(f"; {name} {_partition(one)}" for name, one in numbers["partitions"].items()),
        ),
        (
            "statistics",
            f"{groups['read']:,} of {groups['found']:,} row groups left, {count(rows['read'], 'row')} "
            + ("before the row filter" if numbers["where"] else "and no filter"),
        ),
        ("columns", f"{numbers['columns']} needed, {human(source['bytes']['read'])} per pass"),
    ]
    if numbers["probe"] and numbers["where"]:
        lines.append(("filter", f"keeps about {numbers['probe']['kept']:.1%} of the rows"))
    return lines


def _partition(numbers: PlanNumbers) -> str:
    return f"{numbers['type']}{'' if numbers['declared'] else ' (inferred)'}"


def _passes(numbers: PlanNumbers) -> Sequence[TreeLine]:
    lines = [("passes", f"{numbers['passes']} over these columns")]
    origin = numbers["fitted_from"]
    if origin:
        state = f"state of {origin['path']} ({origin['fingerprint'][:8]})"
        lines.append(("fit", f"no fit pass: {state}, fitted on {count(origin['rows'], 'row')}"))
    for level in numbers["levels"]:
        lines.append((level["stage"], count(numbers["tasks"]["fit"], "task")))
        lines += [(f"  {step}", _few(names)) for step, names in level["steps"].items()]
    if not numbers["levels"] and numbers["tasks"]["fit"]:
        lines.append(("count", f"{count(numbers['tasks']['fit'], 'task')}: the rows of each part, to plan the shards"))
    if numbers["tasks"]["shuffle"]:
        space = f"up to about {human(numbers['output']['shuffled_bytes'])} in {RUNS}/ of the output until the run ends"
        lines.append(("shuffle", f"{count(numbers['tasks']['shuffle'], 'task')}; keeps {space}"))
    least, most = numbers["row_groups_a_shard"].values()
    groups = f"{least} to {most} row groups" if least < most else count(least, "row group")
    lines.append(("write", f"{count(numbers['tasks']['write'], 'task')}; the rows of a shard come from {groups}"))
    return lines


def _splits(numbers: PlanNumbers) -> Sequence[TreeLine]:
    output, fitted = numbers["output"], numbers["fitted"]
    about = "" if output["certainty"] == "exactly" else f"{output['certainty']} "
    each = "up to about " if output["certainty"] == "at most" else about
    lines = [("splits", f"{about}{count(output['rows'], 'row')} in {count(output['shards'], 'shard')}")]
    learns = " (fitted)" if numbers["levels"] else ""
    for name, part in output["parts"].items():
        size = f"{_range(part['bytes_low'], part['bytes_high'])}"
        shards = f"{count(part['shards'], 'shard')} of about {human(part['shard_bytes'])}"
        lines.append(
            (name, f"{each}{count(part['rows'], 'row')}, {size}, in {shards}{learns if name == fitted else ''}")
        )
    return lines


def _output(numbers: PlanNumbers) -> Sequence[TreeLine]:
    output = numbers["output"]
    low, high = output["row_bytes"]
    size = f"{low:,.0f} B" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f} B"
    packed = output["compression"] != "none"
    before = ", before compression" if packed and not numbers["probe"] else ""
    kind = f"layout {output['layout']}, {len(numbers['features'])} columns, compression {output['compression']}"
    amount = f"{_range(output['bytes_at_least'], output['bytes_at_most'])}, {size} per row{before}"
    bound = "at most " if output["certainty"] == "at most" else "about "
    lines = [("output", output["path"]), ("records", kind), ("size", bound + amount)]
    unservable = numbers["not_servable"]
    if unservable:
        more = f"; and {len(unservable) - 3:,} more, see --json" if len(unservable) > 3 else ""
        lines.append(("serving", f"not servable: {'; '.join(unservable[:3])}{more}"))
    return lines


def _memory(numbers: PlanNumbers) -> Sequence[TreeLine]:
    worker = numbers["worker"]
    of_words = f", {human(worker['vocabulary_bytes'])} of it for vocabularies" if worker["vocabulary_bytes"] else ""
    text = f"about {human(numbers['memory_bytes_per_thread'])} per worker thread besides the libraries{of_words}"
    on = f"{count(worker['threads'], 'worker')} of one thread would have {human(worker['memory_bytes'])} each"
    return [("memory", text), ("here", on)]


def _time(numbers: PlanNumbers) -> Sequence[TreeLine]:
    probe, threads = numbers["probe"], numbers["worker"]["threads"]
    whole = probe["forecast_seconds"]
    basis = (
        f"measured on {probe['row_groups']:,} of {probe['row_groups_of']:,} row groups ({probe['rows']:,} rows), with "
        "one thread of this machine; the time to start workers and to write to the storage is not included"
    )
    if whole is None:
        basis += "; the probe does not measure fit: dask_ml, so the time of the run is not known"
    first = f"about {duration(whole, tenths=True)} on {count(threads, 'thread')}" if whole is not None else "not known"
    lines = [("time", first)]
    for stage, pace in probe["stages"].items():
        takes = (
            f"about {duration(pace['forecast_seconds'], tenths=True)}, at "
            if pace["forecast_seconds"] is not None
            else ""
        )
        lines.append((stage, f"{takes}{pace['rows_per_second']:,} rows/s per thread"))
    if probe["distinct"]:
        words = [f"{name} {_distinct(one)}" for name, one in probe["distinct"].items()]
        lines.append(("distinct", ", ".join(words)))
    return [*lines, ("based on", basis)]


def _distinct(found: Mapping[str, int]) -> str:
    growing = found["expected"] > 2 * found["seen"]  # a number that grows this fast in a probe may end anywhere
    return f"{'up to' if growing else 'about'} {found['expected']:,} ({found['seen']:,} seen)"


def _range(low: int, high: int) -> str:
    return human(low) if human(low) == human(high) else f"{human(low)} to {human(high)}"


def _few(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
