"""The clocks of time zones: the offsets from UTC in the tz database, for every instant that 64 bits hold.

A zone's file (RFC 8536, TZif) lists its changes of offset up to some year, and ends with a rule for all later years in
the notation of POSIX's variable TZ. As the Gregorian calendar repeats every 400 years, the changes of 400 years by that
rule are enough for all time: later instants are moved back by whole cycles.
"""

from __future__ import annotations

import datetime as dt
import importlib.resources
import re
import struct
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CYCLE = 146_097 * 86_400
"""Seconds in 400 years of the Gregorian calendar, which are whole weeks."""

_DAY = 86_400
_EPOCH = dt.date(1970, 1, 1).toordinal()
_OFFSET = r"([+-]?)(\d+)(?::(\d+))?(?::(\d+))?"
_NAME = r"(?:[A-Za-z]+|<[^>]+>)"
_DAY_OF_RULE = rf"(M\d+\.\d\.\d|J?\d+)(?:/{_OFFSET})?"
_RULE = re.compile(rf"{_NAME}{_OFFSET}(?:{_NAME}(?:{_OFFSET})?,{_DAY_OF_RULE},{_DAY_OF_RULE})?")

Seconds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Zone:
    """The changes of a zone's offset: seconds since 1970 in UTC, int64 [m], rising, and the offset from UTC in seconds
    before the first and from each on, int64 [m + 1].

    The changes of the 400 years before `end` repeat for ever.
    """

    changes: Seconds
    offsets: Seconds
    end: int

    def offsets_at(self, seconds: Seconds) -> Seconds:
        """The offset at each instant, int64 [n], of seconds since 1970 in UTC."""
        cycles = np.maximum((seconds - self.end) // CYCLE + 1, 0)
        found: Seconds = self.offsets[np.searchsorted(self.changes, seconds - cycles * CYCLE, side="right")]
        return found


@lru_cache(maxsize=64)
def zone(name: str) -> Zone:
    """The zone of this name in the tz database. ValueError if there is none."""
    data = _read(name)
    changes, offsets, rule = _parsed(data, name)
    start = changes[-1] if changes else 0
    for second, offset in _by_rule(rule, start) if rule else ():
        changes.append(second)
        offsets.append(offset)
    return Zone(np.array(changes, np.int64), np.array(offsets, np.int64), start + CYCLE)


def _read(name: str) -> bytes:
    """The file of a zone: of the system, else of the package tzdata, in which order zoneinfo looks for it, too."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r} in the tz database") from None
    for folder in zoneinfo.TZPATH:
        path = Path(folder) / name
        if path.is_file():
            return path.read_bytes()
    return importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def _parsed(data: bytes, name: str) -> tuple[list[int], list[int], str]:
    """Changes, offsets (one more) and the rule of a TZif file."""
    block = 0
    if data[4:5] >= b"2":  # the first block, of 32 bits, is for old readers
        isut, isstd, leap, times, types, chars = struct.unpack(">6l", data[20:44])
        block = 44 + 5 * times + 6 * types + chars + 8 * leap + isstd + isut
    size, code = (8, "q") if block else (4, "l")
    isut, isstd, leap, times, types, chars = struct.unpack(">6l", data[block + 20 : block + 44])
    if leap:
        raise ValueError(f"the time zone {name!r} counts leap seconds; take the one without 'right/'")
    at = block + 44
    changes = list(struct.unpack(f">{times}{code}", data[at : at + size * times]))
    at += size * times
    kinds = data[at : at + times]
    at += times
    clocks = list(struct.iter_unpack(">lbb", data[at : at + 6 * types]))
    at += 6 * types + chars + isstd + isut
    first = next((offset for offset, daylight, _ in clocks if not daylight), clocks[0][0])
    return changes, [first, *(clocks[kind][0] for kind in kinds)], data[at:].strip().decode() if block else ""


def _by_rule(rule: str, start: int) -> Iterator[tuple[int, int]]:
    """The changes in the 400 years after `start`, and the offset from each on."""
    match = _RULE.fullmatch(rule)
    if match is None:
        raise ValueError(f"the rule {rule!r} of a time zone cannot be read")
    groups = match.groups()
    standard = -_seconds(groups[0:4])
    if groups[8] is None:
        return
    daylight = -_seconds(groups[4:8]) if groups[5] else standard + 3600
    year = dt.date.fromordinal(start // _DAY + _EPOCH).year
    found = []
    for one in range(year - 1, year + 402):
        for day, clock, before, after in (
            (groups[8], groups[9:13], standard, daylight), (groups[13], groups[14:18], daylight, standard),
        ):  # fmt: skip
            time = _seconds(clock) if clock[1] else 7200
            found.append((_day_of(one, day) * _DAY + time - before, after))
    yield from ((second, offset) for second, offset in sorted(found) if start < second < start + CYCLE)


def _seconds(parts: tuple[Any, ...]) -> int:
    sign, hours, minutes, seconds = parts
    size = int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return -size if sign == "-" else size


def _day_of(year: int, day: str) -> int:
    """Days since 1970 of the day of a rule: Mm.w.d, the week `w` (5: last) with weekday `d`; Jn, without February 29;
    or n, from 0."""
    first = dt.date(year, 1, 1).toordinal() - _EPOCH
    if day[0] == "J":
        leap = dt.date(year, 12, 31).timetuple().tm_yday == 366
        return first + int(day[1:]) - 1 + (leap and int(day[1:]) > 59)
    if day[0] != "M":
        return first + int(day)
    month, week, weekday = map(int, day[1:].split("."))
    begin = dt.date(year, month, 1)
    place = (weekday - begin.isoweekday()) % 7 + 7 * (week - 1)
    following = dt.date(year + month // 12, month % 12 + 1, 1)
    if place >= (following - begin).days:
        place -= 7
    return begin.toordinal() - _EPOCH + place
