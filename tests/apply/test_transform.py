"""New rows through a dataset's features: the values of its own records, whatever form the rows come in."""

from __future__ import annotations

import datetime
import math
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.apply.rows import as_batch
from dtap_dask.errors import DataError, JobError, OutputError
from in_process import run_in_process

ROWS = 500
DAY = datetime.date(2024, 2, 27)


def lake() -> pa.Table:
    rng = np.random.default_rng(0)
    number = rng.normal(size=ROWS)
    return pa.table(
        {
            "id": pa.array(range(ROWS)),
            "fare": pa.array(number, mask=rng.random(ROWS) < 0.1),
            "company": pa.array([[None, "blue", "réd", ""][i] for i in rng.integers(0, 4, ROWS)]),
            "count": pa.array(rng.integers(0, 9, ROWS), pa.int32()),
            "price": pa.array([f"{cents / 100:.2f}" for cents in rng.integers(0, 999, ROWS)]).cast(pa.decimal128(7, 2)),
            "day": pa.array([DAY + datetime.timedelta(days=int(i)) for i in rng.integers(0, 40, ROWS)]),
            "tags": pa.array([["x", "y", "z"][: i % 4] for i in range(ROWS)]),
            "unused": pa.array(["w"] * ROWS),
        }
    )


JOB: dict[str, Any] = {
    "version": 1,
    "name": "new rows",
    "derive": {"month": "month(day)", "later": "month + 1", "good": "fare > 0"},
    "label": "good",
    "keep": ["id"],
    "source": {"where": "fare is not null or id >= 0"},
    "features": [
        {"columns": ["fare"], "steps": [{"impute": {"indicator": True}}, "standard_scale"]},
        {"columns": ["company"], "steps": ["ordinal_encode"]},
        {"columns": ["count"], "steps": ["one_hot_encode"], "as": "hot"},
        {"columns": ["company"], "steps": ["count_encode"], "as": "often"},
        {"columns": ["count", "later"], "steps": ["minmax_scale"], "name": "both"},
        {"columns": ["price"], "steps": [{"bucketize": {"quantiles": 4}}]},
        {"columns": ["tags"], "steps": [{"hash_encode": 16}]},
        {"columns": ["count"], "steps": [{"standard_scale": {"by": "company"}}], "as": "among"},
        {
            "columns": ["fare"],
            "steps": [{"impute": {"by": "day"}}, {"bucketize": {"quantiles": 3, "by": "later"}}],
            "as": "third",
        },
        {"columns": ["company"], "as": "plain", "steps": [{"impute": {"strategy": "constant", "value": "?"}}]},
    ],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(lake(), folder / "lake.parquet")
    source = {"path": str(folder / "lake.parquet"), "where": "company is null or company <> 'zz'"}
    where = {**JOB, "derive": {**JOB["derive"], "good": "coalesce(fare, 0) > 0"}, "source": source}
    run_in_process({**where, "output": {"path": str(folder / "out"), "shuffle": "none"}})
    return str(folder / "out")


def records(dataset: str) -> dict[str, Any]:
    """The dataset's rows in the source's order, by TensorFlow."""
    found: dict[str, list[Any]] = {}
    for features, _ in dtap_dask.load(dataset, batch_size=ROWS, shuffle=False):
        for name, values in features.items():
            found.setdefault(name, []).append(values)
    return {name: values[0] for name, values in found.items()}


def plain(values: Any) -> list[Any]:
    if isinstance(values, tf.RaggedTensor):
        return values.to_list()  # type: ignore[no-any-return]
    return values.numpy().tolist() if isinstance(values, tf.Tensor) else [_listed(one) for one in values]


def _listed(one: Any) -> Any:
    return one.tolist() if hasattr(one, "tolist") else one


def forms(table: pa.Table) -> Iterator[tuple[str, Any]]:
    yield "pandas", table.to_pandas()
    yield "pandas of Arrow", table.to_pandas(types_mapper=pd.ArrowDtype)
    yield "pandas with categories", table.to_pandas().astype({"company": "category"})
    yield "dict of columns", table.to_pydict()
    yield "dict of arrays", {name: table.column(name).combine_chunks() for name in table.column_names}
    yield "dicts", table.to_pylist()


def test_rows_of_several_batches_are_those_of_one(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake().filter(pc.fill_null(pc.not_equal(lake()["company"], "zz"), True))
    whole, named = dtap_dask.transform(dataset, table), dtap_dask.transform(dataset, table.to_pylist())
    monkeypatch.setattr("dtap_dask.apply.whole.BATCH_ROWS", 7)
    monkeypatch.setattr("dtap_dask.apply.encoded.ENCODED_FROM", 7)
    monkeypatch.setattr("dtap_dask.apply.dicts.BLOCK_ROWS", 11)
    monkeypatch.setattr("dtap_dask.apply.rows.SPAN_ROWS", 70)
    assert dtap_dask.transform(dataset, table).combine_chunks().equals(whole.combine_chunks())
    expected = {name: plain(one) for name, one in named.items()}
    for rows in (table.to_pylist(), table.to_pydict(), table.to_pandas().astype(object)):
        again = dtap_dask.transform(dataset, rows)
        assert {name: plain(values) for name, values in again.items()} == expected


def test_new_rows_become_what_the_records_hold(dataset: str) -> None:
    expected, table = records(dataset), lake().drop_columns(["id", "unused"])
    for form, rows in forms(table):
        made = dtap_dask.transform(dataset, rows)
        assert list(made) == list(expected), form
        for name, values in made.items():
            assert plain(values) == plain(expected[name]), (form, name)
            if values.dtype != object:
                assert values.dtype == expected[name].dtype.as_numpy_dtype, (form, name)


def test_arrow_rows_give_an_arrow_table(dataset: str) -> None:
    expected = records(dataset)
    made = dtap_dask.transform(dataset, lake())
    assert made.column_names == list(expected)
    assert all(made[name].to_pylist() == plain(expected[name]) for name in expected)
    assert made.schema.field("both").type == pa.list_(pa.float32(), 2)
    batch = lake().slice(3, 1).combine_chunks().to_batches()[0]
    assert dtap_dask.transform(dataset, batch).equals(made.slice(3, 1))


def test_one_row_is_a_dict_of_scalars(dataset: str) -> None:
    whole = dtap_dask.transform(dataset, lake().to_pydict())
    for number in (0, 3, 7):
        made = dtap_dask.transform(dataset, lake().to_pylist()[number])
        assert {name: plain(values) for name, values in made.items()} == {
            name: plain(values[number : number + 1]) for name, values in whole.items()
        }
    spelled = {**lake().to_pylist()[5], "day": "2024-03-01", "fare": None, "company": "never seen"}
    made = dtap_dask.transform(dataset, spelled)
    assert made["company"].tolist() == [1]
    assert made["fare_missing"].tolist() == [1]
    nothing = dtap_dask.transform(dataset, lake().slice(0, 0).to_pandas())
    assert {len(values) for values in nothing.values()} == {0}


NOTHING = [np.nan, None, pd.NaT, pd.NA]


@pytest.mark.parametrize("nothing", NOTHING)
def test_columns_without_values_are_null_whatever_their_type(dataset: str, nothing: Any) -> None:
    table = lake().slice(0, 2)
    made = dtap_dask.transform(dataset, table.to_pandas().assign(company=nothing, fare=nothing))
    assert (made["company"].tolist(), made["fare_missing"].tolist()) == ([0, 0], [1, 1])
    batch = as_batch(pd.DataFrame({name: [nothing] * 2 for name in table.column_names}), table.schema)
    assert batch.schema == table.schema
    assert all(column.null_count == 2 for column in batch.columns)


def test_nan_among_integers_is_null() -> None:
    rows = {"count": pa.array([float("nan"), 3.0])}
    assert as_batch(rows, pa.schema({"count": pa.int32()})).to_pydict() == {"count": [None, 3]}


def test_no_rows_in_any_form(dataset: str) -> None:
    frame = lake().to_pandas()
    for rows in ([], frame.iloc[:0], pd.DataFrame(columns=frame.columns, dtype=float), {name: [] for name in frame}):
        assert {len(values) for values in dtap_dask.transform(dataset, rows).values()} == {0}


def test_a_dask_dataframe_is_transformed_by_partition(dataset: str) -> None:
    frame = lake().to_pandas(types_mapper=pd.ArrowDtype)
    made = dtap_dask.transform(dataset, dd.from_pandas(frame, npartitions=3))
    computed = made.compute(scheduler="synchronous")
    assert list(made.columns) == list(computed.columns)
    assert (made.dtypes == computed.dtypes).all()
    assert computed.index.equals(frame.index)
    expected = dtap_dask.transform(dataset, lake())
    assert all(computed[name].to_numpy().tolist() == expected[name].to_numpy().tolist() for name in ("fare", "company"))


def test_keys_that_dicts_lack_are_null(dataset: str) -> None:
    whole = lake().slice(0, 3).drop_columns(["id", "unused"])
    expected = dtap_dask.transform(dataset, {**whole.to_pydict(), "company": [None, *whole["company"].to_pylist()[1:]]})
    first, *others = whole.to_pylist()
    del first["company"]
    for rows in ([first, *others], [defaultdict(lambda: "never", row) for row in (first, *others)]):
        made = dtap_dask.transform(dataset, rows)
        assert {name: plain(one) for name, one in made.items()} == {name: plain(one) for name, one in expected.items()}
        assert "company" not in rows[0]
    with pytest.raises(DataError, match="lack column 'company'"):
        dtap_dask.transform(dataset, [first])


@pytest.fixture(scope="module")
def of_lists(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset whose first column is one of lists."""
    folder = tmp_path_factory.mktemp("lists")
    table = pa.table(
        {"tags": [["x", "y"], ["z"]], "place": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2))}
    )
    pq.write_table(table, folder / "lake.parquet")
    steps = ["null_as_empty", {"hash_encode": 9}, {"pad": 2}]
    features = [{"columns": ["tags"], "steps": steps}, {"columns": ["place"]}]
    source, output = {"path": str(folder / "lake.parquet")}, {"path": str(folder / "out")}
    run_in_process({"version": 1, "source": source, "features": features, "output": output})
    return str(folder / "out")


@pytest.mark.parametrize("tags", [[["x", "y"], ["z"]], [None, ["z"]], [None, None]])
def test_a_dict_of_columns_whose_first_are_lists(of_lists: str, tags: list[Any]) -> None:
    places = [[1.0, 2.0], [3.0, 4.0]]
    array, fixed = pa.array(tags, pa.list_(pa.string())), pa.array(places, pa.list_(pa.float64(), 2))
    wanted = dtap_dask.transform(of_lists, pa.table({"tags": array, "place": fixed}))
    series = pd.Series([math.nan if one is None else one for one in tags], index=[7, 8])
    for columns in ((array, fixed), (tags, places), (series, np.array(places)), (pa.chunked_array([array]), fixed)):
        made = dtap_dask.transform(of_lists, dict(zip(("tags", "place"), columns, strict=True)))
        assert made["tags"].tolist() == wanted["tags"].to_pylist()
        assert made["place"].tolist() == wanted["place"].to_pylist()


@pytest.mark.parametrize("whole", [list, tuple, np.array])
def test_a_dict_of_one_row_whose_first_value_is_a_list(of_lists: str, whole: Any) -> None:
    made = dtap_dask.transform(of_lists, {"tags": whole(["x", "y"]), "place": whole([1.0, 2.0])})
    [expected] = dtap_dask.transform(of_lists, [{"tags": ["x", "y"], "place": [1.0, 2.0]}])["tags"].tolist()
    assert made["tags"].tolist() == [expected]
    assert made["place"].tolist() == [[1.0, 2.0]]


def changed(**columns: Any) -> dict[str, Any]:
    table = lake().slice(0, 2).to_pydict()
    table.update(columns)
    return {name: values for name, values in table.items() if values is not None}


INEXACT = "Column 'count' is int32 in the lake, and the rows have values that this does not hold exactly: "
UNKNOWN = "values that are not known may be null."
REFUSED = [
    ({"x": [1]}, "The rows lack columns 'fare', 'company', 'count', 'price', 'day', 'tags', which the features need. "
     f"Add them; {UNKNOWN}"),
    (changed(day=None), f"The rows lack column 'day', which the features need. Add it; {UNKNOWN}"),
    (changed(count=[1.5, 2.0]), INEXACT),
    (changed(count=[1, 2**40]), INEXACT),
    (changed(count=["1", "2"]), f"{INEXACT}they are string. Convert the column, or leave such rows out."),
    (changed(company=[1, 2]), "Column 'company' is string in the lake"),
    (changed(fare=[True, False]), "Column 'fare' is double in the lake, and the rows have values that this does not "
     "hold exactly: they are bool"),
    (changed(count=[True, False]), f"{INEXACT}they are bool"),
    (changed(tags=[[1], []]), "that this does not hold exactly: they are list<item: int64>"),
    (changed(price=[0.125, 1.0]), "Column 'price' is decimal128(7, 2) in the lake, and the rows have values that this "
     "does not hold exactly: one of them is 0.125"),
    (changed(day=[1, 2]), "hold exactly: they are int64"),
    (changed(day=[datetime.datetime(2024, 3, 1), datetime.datetime(2024, 3, 1, 5)]), "one of them is 2024-03-01 05:00"),
    (changed(price=["0.125", "1"]), "Column 'price' is decimal128(7, 2) in the lake"),
    (changed(day=["2024-02-30", None]), "Column 'day' is date32[day] in the lake"),
    (changed(fare=[1.0]), "The columns differ in their number of rows: 'fare' 1, 'company' 2"),
    (changed(fare=[1.0, float("inf")]), "infinite"),
    (lake().append_column("count", pa.array(range(ROWS))), "several columns of the name 'count'"),
    (lake().to_pandas().rename(columns={"unused": "fare"}), "several columns of the name 'fare'"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), REFUSED)
def test_rows_that_cannot_be_transformed_are_refused(dataset: str, rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=".") as error:
        dtap_dask.transform(dataset, rows)
    assert message in str(error.value)


def test_a_dataset_is_read_again_once_it_is_replaced(dataset: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    before = dtap_dask.transform(str(copy), lake())
    lazy = dtap_dask.transform(copy, dd.from_pandas(lake().to_pandas(), npartitions=2))
    job = {**JOB, "source": {"path": str(Path(dataset).parent / "lake.parquet"), "where": "fare > 0"}}
    run_in_process({**job, "output": {"path": str(copy)}}, overwrite=True)
    assert not dtap_dask.transform(str(copy), lake())["fare"].equals(before["fare"])
    with pytest.raises(DataError, match="was replaced by another one after `transform` was called"):
        lazy.compute(scheduler="synchronous")
    with pytest.raises(OutputError, match="manifest"):
        dtap_dask.transform(str(tmp_path), lake())


def test_values_of_the_environment_are_not_written_into_a_dataset(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALT", "s3cret-salt")
    job = {
        **{key: JOB[key] for key in ("version", "name")},
        "source": {"path": str(Path(dataset).parent / "lake.parquet"), "where": "company is not null"},
        "derive": {"salted": "company || '${SALT}'", "more": "count + 1"},
        "features": [{"columns": ["salted"], "steps": [{"hash_encode": 1000}]}],
    }
    run_in_process({**job, "output": {"path": str(tmp_path / "out"), "shuffle": "none"}})
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert "s3cret" not in manifest
    assert "company || '${SALT}'" in manifest
    monkeypatch.delenv("SALT")
    for use in (lambda path: dtap_dask.transform(path, {"company": "blue"}), dtap_dask.serving):
        with pytest.raises(OutputError, match="'salted' was computed with the environment variable SALT"):
            use(str(tmp_path / "out"))
    monkeypatch.setenv("SALT", "s3cret-salt")
    words = [word for word in lake()["company"].to_pylist() if word is not None]
    made = dtap_dask.transform(str(tmp_path / "out"), {"company": words})["salted"].tolist()
    [batch] = dtap_dask.load(str(tmp_path / "out"), batch_size=ROWS, shuffle=False)
    assert made == batch["salted"].numpy().tolist()
    layer = dtap_dask.serving(str(tmp_path / "out"))
    assert layer({"company": tf.constant(words)})["salted"].numpy().tolist() == made


def test_neither_dask_nor_tensorflow_is_needed(dataset: str) -> None:
    code = f"""
import sys, dtap_dask
print(dtap_dask.vocabulary({dataset!r}, "company").num_rows)
row = dict(fare=1.0, company="blue", count=1, price="1.00", day="2024-03-01", tags=["x"])
print(dtap_dask.transform({dataset!r}, row)["company"])
assert not {{"dask", "distributed", "tensorflow", "keras"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "3"


def test_vocabularies_list_words_in_the_order_of_ids(dataset: str) -> None:
    words = dtap_dask.vocabulary(dataset, "company")
    column = lake()["company"]
    counted = {one["values"]: one["counts"] for one in pc.value_counts(column.drop_null()).to_pylist()}
    assert words["id"].to_pylist() == [2, 3, 4]
    assert {one["value"]: one["count"] for one in words.to_pylist()} == counted
    made = dtap_dask.transform(dataset, lake().to_pydict())["company"].tolist()
    ids = {one["value"]: one["id"] for one in words.to_pylist()}
    assert made == [ids.get(word, 0) for word in column.to_pylist()]
    assert dtap_dask.vocabulary(dataset, "hot")["value"].to_pylist() == list(range(9))
    with pytest.raises(JobError, match="no column 'hat'. Did you mean 'hot'"):
        dtap_dask.vocabulary(dataset, "hat")
    for name in ("fare", "often"):  # the words of count_encode have no ids
        with pytest.raises(JobError, match="has no vocabulary: only the ids and vectors that ordinal_encode, "):
            dtap_dask.vocabulary(dataset, name)
