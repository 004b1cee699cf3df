"""The options of the command."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import environments
import growth
import wide

PEERS = tuple(environments.REQUIREMENTS)
SECTIONS = ("job", "encode", "load", "start", "growth")


def parse() -> argparse.Namespace:
    """The options; a mistake ends the program with its reason."""
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/run.py",
        description="Measure the whole job, encoding, loading, start-up and growth, against other tools.",
    )
    add = parser.add_argument
    add("--peers", type=partial(names_of, PEERS), default=(), help=f"all, none (default), or some of {','.join(PEERS)}")
    add("--only", type=partial(names_of, SECTIONS), default=SECTIONS, help=f"sections: some of {','.join(SECTIONS)}")
    add("--rows", type=int, default=400_000, help="rows of our job")
    add("--hand-rows", type=int, default=400_000, help="rows of the job by hand, at most")
    add("--other-rows", type=int, default=400_000, help="rows of the other tools' jobs")
    add("--slow-rows", type=int, default=100_000, help="rows of the slowest one's job")
    add("--larger-rows", type=int, default=1_200_000, help="rows of a second job, where start-up is most of the first")
    add("--load-rows", type=int, default=2_000_000, help="rows a loading is timed over, at most")
    add("--sizes", type=int, nargs="+", default=growth.SIZES, help="rows of the jobs that show growth")
    add("--counts", type=int, nargs="+", default=wide.COUNTS, help="columns, and row groups, whose cost is drawn")
    add("--repeat", type=int, default=3, help="rounds")
    add("--folder", type=Path, help="where the lakes and datasets go for the time being")
    add("--cache", type=Path, default=environments.CACHE, help="where the other tools' environments are kept")
    add("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    for name in ("sizes", "counts"):
        if len(getattr(options, name)) < 2:
            parser.error(f"--{name} needs two or more: a line goes through them")
    return options


def names_of(known: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The names of a list with commas, `all` or `none`, in the order of `known`."""
    asked = {"all": known, "none": ()}.get(text, text.split(","))
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return tuple(name for name in known if name in asked)
