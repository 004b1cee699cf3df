"""Every mistake in a job or in the data: one clear message that names the place, and the exit code."""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import dtap_dask
from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.errors import DtapError, JobError
from dtap_dask.job.cluster.file import read_cluster_file
from dtap_dask.job.jobfile.document import read_document
from dtap_dask.job.jobfile.spec import Job
from in_process import run_in_process


def changed(job: Document, path: str, value: Any) -> Document:
    """A copy of the job with one place changed, added (`+`) or removed (value is REMOVE)."""
    job = copy.deepcopy(job)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    target: Any = job
    for part in parents:
        target = target[part] if not isinstance(target, dict) else target.setdefault(part, {})
    if value is REMOVE:
        del target[last]
    elif last == "+":
        target.append(value)
    else:
        target[last] = value
    return job


REMOVE = object()
STEPS = "features/0/steps"

MISTAKES: list[tuple[str, Any, str]] = [
    # shape of the file
    ("verison", 1, r"verison \(line \d+\): unknown key 'verison'. Did you mean 'version'?"),
    ("version", 2, r"version \(line 1\): found 2, valid are 1."),
    ("version", REMOVE, r"version: this key is required."),
    ("source", REMOVE, r"source: this key is required."),
    ("source/path", REMOVE, r"source.path \(line \d+\): this key is required."),
    ("source/path", 7, r"source.path \(line \d+\): found 7: a list is needed\."),
    ("source", [1], r"source \(line \d+\): found \[1\]: a mapping of keys is needed\."),
    ("source/path", " ", r"source.path \(line \d+\): found ' ': a path is needed\."),
    ("output/path", "", r"output.path \(line \d+\): found '': a path is needed\."),
    ("features/0", "fare", r"features\[0\] \(line \d+\): found 'fare': a mapping of keys is needed\."),
    ("source/whree", "fare > 0", r"source.whree \(line \d+\): unknown key 'whree'. Did you mean 'where'?"),
    ("source/sample", 1.5, r"source.sample \(line \d+\): found 1.5: a number of at most 1 is needed."),
    ("features", [], r"features \(line \d+\): found \[\]: a list of at least 1 item is needed\."),
    (
        "features/0/colunms",
        ["fare"],
        r"features\[0\].colunms \(line \d+\): unknown key 'colunms'. Did you mean 'columns'?",
    ),
    ("fit", "fsued", r"fit \(line \d+\): found 'fsued', valid are 'fused' or 'dask_ml'. Did you mean 'fused'?"),
    ("output/layout", "row", r"output.layout .*: found 'row', valid are 'blocks' or 'rows'. Did you mean 'rows'?"),
    ("output/compression", "zstd", r"output.compression .*: found 'zstd', valid are 'none' or 'gzip'."),
    ("output/shard_size", "many", r"output.shard_size .*: found 'many': a size is needed, such as 20GiB."),
    ("output/rows_per_record", 0, r"output.rows_per_record .*: found 0: a number of at least 1 is needed."),
    ("output/shuffle", "gobal", r"output.shuffle .*: found 'gobal', valid are 'none', 'mixed' or 'global'. Did you"),
    ("output/seed", "x", r"output.seed .*: found 'x': a whole number is needed."),
    ("storage", {"dtap": {"mpa": {}}}, r"storage\.dtap\.mpa .*: unknown key 'mpa'\. Did you mean 'map'\?"),
    # steps and their options
    (
        STEPS,
        ["standard_scal"],
        r"features\[0\].steps\[0\] \(line \d+\): there is no step 'standard_scal'. Did you mean",
    ),
    (STEPS, ["estimator"], r"features\[0\].steps\[0\] .*estimator.path: this key is required: a text."),
    (
        STEPS,
        [{"impute": {"strategy": "avg"}}],
        r"features\[0\].steps\[0\] .*impute.strategy: found 'avg', valid are .*mean",
    ),
    (
        STEPS,
        [{"impute": {"stratgy": "mean"}}],
        r"features\[0\].steps\[0\] .*impute.stratgy: unknown key 'stratgy'. Did",
    ),
    (
        STEPS,
        [{"impute": {}, "log1p": {}}],
        r"features\[0\].steps\[0\] .*: a step is a name, or one name with its options: {impute: {\.\.\.}}\.",
    ),
    (STEPS, [{"clip": {"min": 3, "max": 1}}], r"features\[0\].steps\[0\] .*clip"),
    (STEPS, ["log1p", {"bucketize": {}}], r"features\[0\].steps\[1\] .*boundaries.*quantiles"),
    (
        STEPS,
        [{"ordinal_encode": {"oov_buckets": -1}}],
        r"features\[0\].steps\[0\] .*ordinal_encode.oov_buckets: found -1",
    ),
    # columns
    (
        "features/0/columns",
        ["fair"],
        r"features\[0\].columns\[0\] \(line \d+\): there is no column 'fair'. Did you mean 'fare'?",
    ),
    ("features/0/columns", ["zz*"], r"features\[0\].columns\[0\] .*: no column matches 'zz\*'"),
    ("label", "big_tiper", r"label \(line \d+\): there is no column 'big_tiper'. Did you mean 'big_tipper'?"),
    ("weight", "wait", r"weight \(line \d+\): there is no column 'wait'."),
    ("keep", ["trip"], r"keep\[0\] \(line \d+\): there is no column 'trip'. Did you mean 'trip_id'?"),
    ("split/key", ["trip"], r"split.key \(line \d+\): there is no column 'trip'. Did you mean 'trip_id'?"),
    ("split/key", ["fare"], r"split.key .*: 'fare' is double: a key must be text, whole numbers"),
    ("source/partitions", {"yaer": "int32"}, r"source.partitions.yaer .*: the source has no folders yaer=.*'year'"),
    ("source/partitions", {"year": "integr"}, r"source.partitions.year .*'integr' is not a type"),
    ("derive/fare", "1.0", r"derive.fare .*: the lake already has a column 'fare'"),
    # what steps make of a type
    (
        STEPS,
        [{"datetime_parts": ["houre"]}],
        r"datetime_parts.extract: found 'houre', valid are .*Did you mean 'hour'\?",
    ),
    (
        STEPS,
        [{"datetime_parts": {"extract": "hour", "zone": "Mars"}}],
        r"there is no time zone 'Mars' in the tz database",
    ),
    ("features/0/columns", ["tags"], r"features\[0\].steps\[0\] .*'tags': .* of each element: impute"),
    ("features/0/columns", ["trip_start"], r"features\[0\].steps\[0\] .*'trip_start': impute .*cast"),
    ("derive/big_tipper", "lower(company)", r"label .*'big_tipper': a label of text needs an encoder.*ordinal_encode"),
    # keys of steps
    (
        STEPS,
        [{"impute": {"by": "compani"}}, "standard_scale"],
        r"features\[0\].steps\[0\] .*: by: there is no column 'compani'. Did you mean 'company'\?",
    ),
    (STEPS, [{"impute": {"by": "tips"}}], r"features\[0\].steps\[0\] .*: by: keys are text.*'tips' is float"),
    (STEPS, [{"impute": {"by": "big_tipper"}}], r"features\[0\].steps\[0\] .*: by: column 'big_tipper' is the label"),
    (STEPS, [{"impute": {"by": "company", "max_keys": 0}}], r"features\[0\].steps\[0\] .*impute.max_keys: found 0"),
    (
        "features/0",
        {"columns": ["fare"], "steps": [{"impute": {"value": 1, "strategy": "constant", "by": "company"}}]},
        r"features\[0\].steps\[0\] .*`by` goes with a strategy that learns",
    ),
    # SQL
    ("source/where", "fare >", r"source.where \(line \d+\): 'fare >' is not valid SQL"),
    ("source/where", "fair > 0", r"source.where .*: .*fair.*Did you mean 'fare'?"),
    ("source/where", "fare + 1", r"source.where .*: 'fare \+ 1' gives double, but a condition must be true or false"),
    ("source/where", "trip_start > 'abc'", r"source.where .*trip_start.*timestamp.*abc"),
    ("source/where", "trip_id = 'x'", r"source.where .*trip_id.*int64.*x"),
    ("source/where", "count(*) > 1", r"source.where .*count"),
    ("derive", {"big_tipper": "tips > 0.2 * fair"}, r"derive.big_tipper .*fair.*Did you mean 'fare'?"),
    # names of outputs
    ("features/1/as", "fare", r"features\[1\].as .*: 'fare' gives 2 outputs the same name: put {column} into it."),
    ("features/+", {"columns": ["fare"]}, r"features\[4\] .*: the output 'fare' is already made by features\[0\]"),
    ("keep", ["trip_id", "fare"], r"keep\[1\] .*: the output 'fare' is already made"),
    ("features/3/as", "{column}", r"features\[3\] .*: `name` makes one vector of all columns, `as` names each one"),
    # splits
    ("split/parts/test", 0.2, r"split.parts .*: the fractions add up to 1.1, but must add up to 1."),
    ("split/parts/train", -1, r"split.parts.train .*: found -1"),
    ("split/fit", "trian", r"split.fit .*: found 'trian', but the parts are train, eval, test."),
    ("split/where", {"train": "fare > 1"}, r"split .*: give either `parts` .* or `where`"),
]


def errors_of(job: Document, folder: Path, *arguments: str) -> str:
    """What `dtap-dask plan` says to a job, which must fail with exit code 2."""
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    return errors_of_file(folder / "job.yaml", *arguments)


def errors_of_file(file: Path, *arguments: str) -> str:
    result = CliRunner().invoke(tfrecords, ["plan", str(file), *arguments])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize(
    ("path", "value", "says"), MISTAKES, ids=[f"{path}-{i}" for i, (path, *_) in enumerate(MISTAKES)]
)
def test_a_mistake_in_the_job(path: str, value: Any, says: str, job: Document, tmp_path: Path) -> None:
    told = errors_of(changed(job, path, value), tmp_path)
    assert re.search(says, told), told
    assert len(told.strip().splitlines()) == 1, f"one mistake, one message:\n{told}"


def test_a_key_with_a_mistake_of_its_own_is_reported_once(job: Document, tmp_path: Path) -> None:
    job["derive"]["another"] = "fair > 1"
    job["features"].append({"columns": ["fare"], "steps": [{"impute": {"by": "another"}}], "as": "more"})
    told = errors_of(job, tmp_path)
    assert told.startswith("Error: derive.another")
    assert len(told.strip().splitlines()) == 1, told


def test_all_mistakes_come_at_once(job: Document, tmp_path: Path) -> None:
    job["verison"] = 1
    job["source"]["where"] = "fair > 0"
    job["derive"]["another"] = "tips >"
    job["features"][0]["steps"] = ["standard_scal", {"clip": {"mni": 0}}]
    job["features"][1]["columns"] = ["payment_typ"]
    job["split"]["parts"]["test"] = 0.5
    job["output"]["layout"] = "cols"
    told = errors_of(job, tmp_path)
    for place in (
        "verison", "source.where", "derive.another", "features[0].steps[0]", "features[0].steps[1]",
        "features[1].columns[0]", "split.parts", "output.layout",
    ):  # fmt: skip
        assert re.search(rf"(^|Error: ){re.escape(place)} \(line", told, re.MULTILINE), f"{place} is missing in\n{told}"
    assert len(told.strip().splitlines()) == 8, told


def test_one_wrong_step_in_the_only_block_hides_no_mistake_about_the_lake(job: Document, tmp_path: Path) -> None:
    job["features"] = [{"columns": ["fare"], "steps": ["standard_scal"]}]
    job["source"]["where"] = "fair > 0"
    job["weight"] = "wait"
    lines = errors_of(job, tmp_path).strip().splitlines()
    assert [re.sub(r" \(line.*", "", line) for line in lines] == [
        "Error: features[0].steps[0]",
        "source.where",
        "weight",
    ]


def test_a_key_that_stands_twice_is_told_with_both_lines(job: Document, tmp_path: Path) -> None:
    text = yaml.safe_dump(job, sort_keys=False) + "source:\n  path: elsewhere\n  where: a > 1\nfit: fused\n"
    text = text.replace("  key:\n", "  fit: a\n  fit: b\n  key:\n")
    (tmp_path / "job.yaml").write_text(text)
    lines = text.splitlines()
    told = errors_of_file(tmp_path / "job.yaml")
    first, second = (number for number, line in enumerate(lines, 1) if line == "source:")
    assert f"source (line {second}): the key 'source' is given twice, first in line {first}: only one" in told
    fits = [number for number, line in enumerate(lines, 1) if line.strip() in ("fit: a", "fit: b")]
    assert f"split.fit (line {fits[1]}): the key 'fit' is given twice, first in line {fits[0]}" in told
    assert "source.path" not in told  # what stands below a repeated key is not told once more
    assert told.count("is given twice") == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [*x]\n", r"holds an alias of itself"),
        ("version: [1", r"is not valid YAML at line 1, column \d+"),
        ("- 1\n- 2\n", r"must hold keys such as `version`, `source` and `output`; it is list"),
        ("", r"it is NoneType"),
        (
            "version: 1\nname: ${NO_SUCH_VARIABLE}\n",
            r"name \(line 2\): the environment variable NO_SUCH_VARIABLE is not set",
        ),
    ],
)
def test_a_file_that_is_no_job(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    result = CliRunner().invoke(tfrecords, ["plan", str(tmp_path / "job.yaml")])
    assert result.exit_code == 2
    assert re.search(says, result.output), result.output


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))


@pytest.mark.parametrize("kind", ["job", "cluster"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (BOMB.encode(), r"not valid YAML at line 6, column \d+: with its aliases expanded it holds more than 200,000"),
        (MERGES.encode(), r"with its aliases expanded it holds more than 200,000 values"),
        (b"a: " + b"[" * 70 + b"]" * 70, r"not valid YAML at line 1, column \d+: it is nested more than 64 levels deep"),
        (b"a: " + b"[" * 100_000, r"it is nested more than 64 levels deep"),
        (b"a: " + b"{b: " * 5_000, r"it is nested more than 64 levels deep"),
        (b"- " * 5_000 + b"x", r"it is nested more than 64 levels deep"),
        (b"version: 1\nname: caf\xe9\n", r"is not UTF-8 text: byte 0xe9 in line 2\. Save it as UTF-8"),
        ("version: 1".encode("utf-16"), r"is not UTF-8 text: byte 0xff in line 1"),
        (b"name: a\0b", r"not valid YAML: it holds a character that YAML does not allow \(U\+0000\)"),
        (b"name: a\x1bb", r"it holds a character that YAML does not allow \(U\+001B\)"),
        (b"version: " + b"9" * 5000, r"line 1, column 10: a number of 5,000 digits is too long"),
        (b"version: 0x" + b"f" * 5000, r"a number of 5,002 digits is too long"),
        (b"name: 2013-02-31", r"line 1, column 7: found an invalid timestamp"),
        (rb'name: "\ud800"', r"line 1, column 7: found half of a surrogate pair, which is not valid text"),
        (b"name: !!int x", r"line 1, column 7: found an invalid int"),
        (b"name: !!float ''", r"line 1, column 7: found an invalid float"),
        (b"name: !!python/object:os.system x", r"could not determine a constructor for the tag"),
        (b"? [a, b]\n: c", r"line 1, column 3: found unhashable key"),
        (b"#" * (2 << 20) + b"\n", r"is larger than 2 MiB: is it another file\?"),
    ],
)  # fmt: skip
def test_a_yaml_file_that_cannot_be_read_is_refused_in_a_line(
    data: bytes, says: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{kind}.yaml"
    path.write_bytes(data)
    with pytest.raises(JobError, match=says) as found:
        read_document(path) if kind == "job" else read_cluster_file(str(path))
    assert str(found.value).startswith(f"The {kind} file {path} ")
    assert len(str(found.value).splitlines()) == 1
    shown = "".join(traceback.format_exception(found.value))
    assert "problem_mark" not in shown
    assert len(shown) < 10_000  # no file is shown where --debug shows the traceback


def test_a_job_file_may_have_a_byte_order_mark_aliases_and_merged_keys(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n"
    (tmp_path / "job.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    document = read_document(tmp_path / "job.yaml")
    assert document.raw == yaml.safe_load(text)
    assert document.problems == ()
    assert document.place(("b", "y")) == "b.y (line 2)"


def test_a_job_in_python_is_not_nested_for_ever(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    circle: dict[str, Any] = {}
    circle["a"] = circle
    for given in (deep, circle):
        with pytest.raises(JobError, match="source: it is nested more than 64 levels deep"):
            Job.load({"version": 1, "source": given, "output": {"path": str(tmp_path)}})


def test_a_thousand_mistakes_are_not_all_told_at_once() -> None:
    with pytest.raises(JobError, match=r"\n\.\.\. and 90\d more\.$") as found:
        Job.load(
            {"version": 1, "source": {"path": "x"}, "features": [{"columns": [1]}] * 1000, "output": {"path": "y"}}
        )
    assert len(str(found.value).splitlines()) == 101
    assert len(found.value.problems) >= 1000


def test_half_of_a_surrogate_pair_is_no_text_of_a_job(tmp_path: Path) -> None:
    for given in ({"name": "\ud800"}, {"keep": ["a", "\udcff"]}, {"derive": {"\ud800": "1"}}):
        with pytest.raises(JobError, match="half of a surrogate pair is not valid text") as found:
            Job.load({"version": 1, "source": {"path": str(tmp_path)}, **given})
        assert str(found.value).isascii()


@pytest.mark.parametrize("place", ["source/path", "output/path"])
def test_a_path_with_a_nul_is_no_path(place: str, job: Document) -> None:
    with pytest.raises(
        DtapError, match=r"'[^']*a\\x00b' is not a path( in .*)?: it holds a NUL character|contains '\.\.'"
    ):
        dtap_dask.run(changed(job, place, "a\0b"), progress="silent")


@pytest.mark.parametrize("change", ["storage.s3.secret=[hunter2", "nowhere.x.y=hunter2", "hunter2", "=hunter2"])
def test_a_change_that_is_wrong_does_not_show_its_value(change: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("version: 1\nnowhere: 3\n")
    for debug in ([], ["--debug"]):
        result = CliRunner().invoke(tfrecords, [*debug, "plan", str(tmp_path / "job.yaml"), "--set", change])
        assert result.exit_code != 0
        assert "hunter2" not in result.output + "".join(traceback.format_exception(result.exception))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "no/such/job.yaml"], r"The job file no/such/job.yaml cannot be read"),
        (["plan", "{job}", "--set", "output"], r"--set 'output' is not of the form key=value"),
        (["plan", "{job}", "--set", "features.9.name=x"], r"--set 'features.9.name' names nothing in the job"),
        (["plan", "{job}", "--set", "output.layout=cols"], r"output.layout.*found 'cols'"),
        (["run", "{job}", "--cluster", "x.yaml"], r"The cluster file x.yaml cannot be read"),
        (["run", "{job}", "--memory", "lots"], r"--memory 'lots' is not a size such as 4GiB"),
        (["run", "{job}", "--workers", "0"], r"0 is not in the range x>=1"),
        (["run", "{job}", "--limit", "0"], r"0 is not in the range x>=1"),
        *(([name], rf"`{name}` is not available yet") for name in ("validate", "clean")),
        (["nonsense"], r"No such command 'nonsense'"),
    ],
)
def test_wrong_arguments(arguments: list[str], says: str, job: Document, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    result = CliRunner().invoke(tfrecords, [argument.format(job=tmp_path / "job.yaml") for argument in arguments])
    assert result.exit_code == 2, result.output
    assert re.search(says, result.output), result.output


def test_output_inside_the_source(job: Document, lake: Path, tmp_path: Path) -> None:
    for inside in (lake / "trips", lake / "trips" / "out"):
        told = errors_of(changed(job, "output/path", str(inside)), tmp_path)
        assert re.search(
            r"output.path \(line \d+\): .* lies inside the source .* Choose a folder outside of it\.", told
        )


def small(folder: Path, **columns: Any) -> Document:
    """A job over one small file of the given columns, which are all features."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "part.parquet")
    return {
        "version": 1,
        "source": {"path": str(folder)},
        "features": [{"columns": [name]} for name in columns],
        "output": {"path": str(folder.parent / "out")},
    }


def truncated(folder: Path) -> Document:
    job = small(folder, x=[1.0, 2.0])
    data = (folder / "part.parquet").read_bytes()
    (folder / "part2.parquet").write_bytes(data[: len(data) // 2])
    return job


def damaged(folder: Path) -> Document:
    job = small(folder, x=[float(i) for i in range(5000)])
    data = bytearray((folder / "part.parquet").read_bytes())
    data[4:2000] = bytes(1996)
    (folder / "part.parquet").write_bytes(data)
    return job


def another_schema(folder: Path) -> Document:
    job = small(folder, x=[1.0, 2.0], y=[1, 2])
    pq.write_table(pa.table({"x": ["a"], "z": [1.5]}), folder / "part2.parquet")
    return job


def with_steps(job: Document, *steps: Any) -> Document:
    for block in job["features"]:
        block["steps"] = list(steps)
    return job


def unseen_category(folder: Path) -> Document:
    job = small(folder, word=["a", "b", "c"], part=[0, 0, 1])
    job["split"] = {"where": {"train": "part = 0", "eval": "part = 1"}}
    job["features"] = [{"columns": ["word"], "steps": [{"ordinal_encode": {"oov_buckets": 0}}]}]
    return job


def all_where(job: Document, where: str) -> Document:
    job["source"]["where"] = where
    return job


DATA: list[tuple[str, Callable[[Path], Document], str, int]] = [
    ("a missing folder", lambda f: changed(small(f, x=[1.0]), "source/path", str(f / "nowhere")), r"nowhere", 1),
    ("an unmapped tap", lambda f: changed(small(f, x=[1.0]), "source/path", "dtap://T/x"), r"'T' .* is not mapped", 1),
    ("no files", lambda f: changed(small(f, x=[1.0]), "source/path", f"{f}/*.nothing"), r"nothing", 1),
    ("no rows", lambda f: small(f, x=pa.array([], pa.float64())), r"There are no rows in .*none holds a row", 1),
    ("no rows after pruning", lambda f: all_where(small(f, x=[1.0]), "x > 5"), r"none of their row groups can hold a row", 1),
    ("no rows after the filter", lambda f: all_where(small(f, x=[1.0, 3.0]), "x = 2"), r"none passed.*source.where", 1),
    ("an empty file", lambda f: (small(f, x=[1.0]), (f / "p2.parquet").touch())[0], r"p2.parquet is empty \(0 bytes\)", 1),
    ("a truncated file", truncated, r"part2.parquet \(\d+ bytes\) begins as Parquet but has no footer: it is cut off", 1),
    ("a damaged file", damaged, r"part.parquet cannot be read in row group 0.*damaged", 1),
    ("a text file", lambda f: (small(f, x=[1.0]), (f / "readme").write_text("hello"))[0], r"readme .* is not a Parquet file", 1),
    ("another schema", another_schema, r"'x' is double in .*part.parquet, but string in .*part2.parquet", 1),
    ("a null", lambda f: small(f, x=[1.0, None]), r"column 'x' \(1\) among 2 rows would reach the output.*impute", 1),
    ("NaN is null", lambda f: small(f, x=[1.0, float("nan")]), r"1 of 2 rows .*column 'x' are null.*impute", 1),
    ("an infinity", lambda f: with_steps(small(f, x=[1.0, float("inf")]), "standard_scale"), r"'x'.*infinit", 1),
    ("only nulls", lambda f: with_steps(small(f, x=pa.array([None, None], pa.float64())), {"impute": "mean"}), r"'x'.*null", 1),
    ("log of less than -1", lambda f: with_steps(small(f, x=[1.0, -3.0]), "log1p"), r"'x'.*log1p", 1),
    ("an unseen category", unseen_category, r"'word'.*'c'.*oov_buckets", 1),
    ("an empty part", lambda f: changed(unseen_category(f), "split/where/train", "part = 7"), r"'train', which is fitted, has no rows", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "says", "code"), DATA, ids=[name for name, *_ in DATA])
def test_a_fault_in_the_data(name: str, make: Callable[[Path], Document], says: str, code: int, tmp_path: Path) -> None:
    job = make(tmp_path / "source")
    with pytest.raises(DtapError) as caught:
        run_in_process(job)
    assert re.search(says, str(caught.value), re.DOTALL), str(caught.value)
    assert caught.value.exit_code == code
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_file_that_vanishes_between_plan_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtap_dask.job.running import run as run_module

    job = small(tmp_path / "source", x=[1.0, 2.0])
    job["source"]["where"] = "x > 0"
    planned = run_module.plan_of

    def plan_and_remove(*arguments: Any, **options: Any) -> Any:
        plan = planned(*arguments, **options)
        (tmp_path / "source" / "part.parquet").unlink()
        return plan

    monkeypatch.setattr(run_module, "plan_of", plan_and_remove)
    with pytest.raises(DtapError, match="part.parquet is gone from .* since the source was listed"):
        run_in_process(job)


def test_errors_survive_pickling() -> None:
    import pickle

    from dtap_dask.errors import Problem

    error = JobError([Problem("a", "b"), Problem("", "c")])
    copied = pickle.loads(pickle.dumps(error))
    assert copied.problems == error.problems
    assert str(copied) == "a: b\nc"
