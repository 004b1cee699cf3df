"""The benchmark's own arithmetic, reasons and tables; nothing is timed here."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

import environments
import straight
import table
from arguments import PEERS, names_of
from others import LOADERS, Others, held_against
from results import Figure, Ratio, Section, at_least, at_most, marginal_rate


def figure(name: str, *values: float) -> Figure:
    return Figure(name, values=list(values), rows=1000)


def test_marginal_rate_is_free_of_start_up() -> None:
    start, each = 59.0, 1 / 33_000
    small, large = ((rows, start + rows * each) for rows in (200_000, 400_000))
    assert marginal_rate(small, large) == pytest.approx(33_000)


@pytest.mark.parametrize("large", [(400_000, 59.0), (200_000, 80.0)])
def test_marginal_rate_needs_more_rows_that_take_longer(large: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="no rate follows"):
        marginal_rate((200_000, 60.0), large)


def test_line_through_exact_costs_is_found_and_nothing_is_off_it() -> None:
    sizes = [250_000, 500_000, 1_000_000, 2_000_000]
    costs = [0.5 + 3e-6 * size for size in sizes]
    line = straight.fit(sizes, costs)
    assert (line.start, line.each) == (pytest.approx(0.5), pytest.approx(3e-6))
    assert straight.residuals(line, sizes, costs) == pytest.approx([0] * 4, abs=1e-9)


def test_cost_that_grows_faster_than_the_rows_is_off_the_line() -> None:
    sizes = [1, 2, 4, 8]
    costs = [float(size**2) for size in sizes]
    off = straight.residuals(straight.fit(sizes, costs), sizes, costs)
    assert max(off) > 0.5
    assert min(off) < -0.2


def test_drawing_shows_each_cost_on_the_line() -> None:
    sizes, costs = [1000, 2000, 4000], [1.0, 2.0, 4.0]
    lines = straight.drawing(straight.fit(sizes, costs), sizes, costs).splitlines()
    assert len(lines) == straight.HEIGHT + 2
    assert sum(line.count("o") for line in lines[: straight.HEIGHT]) == 3
    assert lines[0].startswith("    4.00 s |")
    assert lines[0].endswith("o")
    assert lines[-1].endswith("4,000 rows")


def test_ratios_by_speed_time_and_size() -> None:
    fast, slow, nothing = figure("a: fast", 100, 300, 200), figure("b: slow", 50), figure("c: nothing")
    assert Ratio(fast, slow, "x as fast").value == 4
    assert Ratio(slow, fast, "x the time").value == 4
    assert Ratio(slow, fast, "x as much").value == 0.25
    two, one = Figure("two workers", "s", [4.0]), Figure("one worker", "s", [7.0])
    assert Ratio(two, one, "x as fast").value == 1.75
    assert Ratio(one, two, "x the time").value == 1.75
    assert Ratio(fast, nothing, "x as fast").value is None


def test_table_tells_figures_reasons_and_which_aims_are_met() -> None:
    fast, slow = figure("job: fast", 90_000, 110_000, 100_000), figure("job: slow (by hand)", 1000)
    gone = Figure("job: gone", note="ImportError: no")
    start = Figure("start", "s", [0.25], aim=at_most(0.3))
    ratios = [
        Ratio(fast, slow, "x as fast", at_least(60)),
        Ratio(slow, fast, "x the time", at_most(1.6)),
        Ratio(fast, gone, "x as fast", at_least(10)),
        Ratio(fast, slow, "x as much"),
    ]
    section = Section("Jobs", ["A note."], [fast, slow, gone, start], ratios)
    assert table.figures(section).splitlines() == [
        "### Jobs",
        "",
        "A note.",
        "",
        "| what                |  rows |         median |     least - most | remarks         |",
        "|---------------------|------:|---------------:|-----------------:|-----------------|",
        "| job: fast           | 1,000 | 100,000 rows/s | 90,000 - 110,000 |                 |",
        "| job: slow (by hand) | 1,000 |   1,000 rows/s |                  |                 |",
        "| job: gone           |       |           none |                  | ImportError: no |",
        "| start               |       |         0.25 s |                  |                 |",
    ]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.aims([section]).splitlines()[2:]]
    assert cells == [
        ["start", "0.25 s", "at most 0.3", "met"],
        ["job: fast / slow", "100 x as fast", "at least 60", "met"],
        ["job: slow (by hand) / fast", "100 x the time", "at most 1.6", "missed"],
        ["job: fast / gone", "not measured", "at least 10", ""],
        ["job: fast / slow", "100 x as much", "", ""],
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'Traceback (most recent call last):\n  File "/home/me/x.py", line 3\nModuleNotFoundError: No module named'
            " 'pyarrow.filesystem'\n",
            "ModuleNotFoundError: No module named 'pyarrow.filesystem'",
        ),
        (
            "ERROR: Could not find a version that satisfies x\nERROR: No matching distribution found for x==1\n\n"
            "[notice] A new release of pip is available\n",
            "No matching distribution found for x==1",
        ),
        ("OSError: cannot open /home/me/.cache/peers/lib.so\nhint: try again\n╰─> \n", "OSError: cannot open …/lib.so"),
        ("Killed\n", "Killed"),
        ("", ""),
    ],
)
def test_reason_is_the_line_that_says_why(text: str, told: str) -> None:
    assert environments.reason(text) == told


def test_script_gives_its_last_line_and_runs_in_an_empty_folder(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    answer = "json.dumps({'here': os.listdir(), 'got': sys.argv[1:]})"
    script.write_text(f"import json, os, sys\nprint('hello')\nprint({answer})")
    told = environments.run_script(sys.executable, script, tmp_path, 3)
    assert told.pop("whole") > 0
    assert told == {"here": [], "got": [str(tmp_path), "3"]}


def test_script_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import no_such_tool")
    with pytest.raises(environments.Unavailable, match="^ModuleNotFoundError: No module named 'no_such_tool'$"):
        environments.run_script(sys.executable, script)


def test_script_that_is_killed_says_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\nprint('a notice', file=sys.stderr)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    with pytest.raises(environments.Unavailable, match="^ended by signal 9$"):
        environments.run_script(sys.executable, script)


def test_script_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, told = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    monkeypatch.setattr(environments, "SECONDS", 2)
    with pytest.raises(environments.Unavailable, match="not done after 2 s"):
        environments.run_script(sys.executable, script)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "no-such-wheel-1-py3-none-any.whl"
    monkeypatch.setitem(environments.REQUIREMENTS, "ray", (str(missing),))
    with pytest.raises(environments.Unavailable, match="no-such-wheel"):
        environments.python_of("ray", tmp_path)
    assert not (tmp_path / "ray" / "requirements.txt").exists()


def test_other_tools_that_cannot_run_are_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(peer: str, *_: object, **__: object) -> None:
        raise environments.Unavailable(f"no {peer} here")

    monkeypatch.setattr(environments, "run", broken)
    some = Others(PEERS, rows=20, slow_rows=10, larger=30, warm_up=5, cache=tmp_path)
    section = Section("Jobs")
    held_against(section, some.jobs(tmp_path), [figure("job: ours", 1000)])
    reasons = ["no ray here", "no tft here", "no tft here", "no spark here", "no nvtabular here"]
    assert [one.note for one in section.figures] == reasons
    assert not any(one.values for one in section.figures)
    assert table.aims([section]).count("not measured") == 5
    loaders = some.loaders(tmp_path, [1024, 4096])
    assert [(batch, one.note) for batch, one in loaders] == [(1024, f"no {peer} here") for peer in LOADERS]
    assert some.encoder(tmp_path, 1).note == "no tft here"


def test_each_loading_tool_has_an_environment_and_a_script() -> None:
    assert set(LOADERS) <= set(PEERS)
    assert {path.name for path in environments.SCRIPTS.glob("*_load.py")} == {f"{peer}_load.py" for peer in LOADERS}


def test_tools_rates_and_start_up_come_from_what_their_scripts_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(_: str, name: str, *arguments: object, **__: object) -> dict[str, object]:
        if name == "ray_load.py":
            return {
                "version": "2",
                "ways": {"from Parquet": {"1024": [1000, 0.5]}, "held in memory": {"1024": [1000, 0.1]}},
            }
        rows = int(str(arguments[0]).rpartition("-")[2])
        return {"version": "1.2", "rows": rows, "seconds": 60 + rows / 10, "whole": 90 + rows / 10}

    monkeypatch.setattr(environments, "run", script)
    some = Others(("tft", "ray"), rows=20, slow_rows=10, larger=30, warm_up=5, cache=tmp_path)
    ray, whole, marginal = (one for one, _ in some.jobs(tmp_path))
    assert (ray.rows, ray.median) == (10, pytest.approx(10 / 61))
    assert (whole.rows, whole.median, whole.note) == (20, pytest.approx(20 / 62), "1.2; its process took 30 s more")
    assert (marginal.rows, marginal.median) == (30, pytest.approx(10))
    loaded = [(batch, one.name, one.median) for batch, one in some.loaders(tmp_path, [1024])]
    assert loaded == [
        (1024, "load 1024: Ray iter_tf_batches from Parquet", 2000),
        (1024, "load 1024: Ray iter_tf_batches held in memory", 10_000),
    ]


def test_names_of_sections_and_peers() -> None:
    assert names_of(("a", "b", "c"), "c,a") == ("a", "c")
    assert names_of(("a", "b"), "all") == ("a", "b")
    assert names_of(("a", "b"), "none") == ()
    with pytest.raises(ArgumentTypeError, match="d: not among a, b"):
        names_of(("a", "b"), "d")
