"""`append_to: PATH`: ids of an earlier dataset stay, new words follow in the usual order, and what would move one is
refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
from dtap_dask.errors import JobError
from dtap_dask.job.planning.forecast import forecast
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.planning.sharding import planned_row_bytes
from in_process import run_in_process

OLD = pa.table(
    {
        "word": pa.array(["b", "b", "a", None]),
        "number": pa.array([7, 3, 3, None], pa.int32()),
        "flag": pa.array([True, True, None, None]),
        "tags": pa.array([["x"], [], ["y", "x"], ["x"]]),
        "paid": pa.array(["no", "yes", "no", "no"]),
    }
)
NEW = pa.table(
    {
        "word": pa.array(["d", "c", "d", "b", "e", "e", None]),
        "number": pa.array([1, 1, 2, 9, 9, 9, None], pa.int32()),
        "flag": pa.array([False] * 7),
        "tags": pa.array([["z", "y"], [], ["z"], [], [], [], []]),
        "paid": pa.array(["perhaps", "perhaps", "no", "no", "no", "no", "no"]),
    }
)
FEATURES = {"word": {"oov_buckets": 2}, "number": {}, "flag": {}, "tags": {"first": ["none"]}}


def job(folder: Path, name: str, rows: pa.Table, features: dict[str, Any], label: Any = None) -> dict[str, Any]:
    pq.write_table(rows, folder / f"{name}.parquet")
    return {
        "version": 1,
        "source": {"path": str(folder / f"{name}.parquet")},
        "label": {"column": "paid", "steps": [{"ordinal_encode": label or {}}]},
        "features": [{"columns": [column], "steps": [{"ordinal_encode": one}]} for column, one in features.items()],
        "output": {"path": str(folder / name)},
    }


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("append")
    run_in_process(job(folder, "old", OLD, FEATURES))
    return folder / "old"


def words(path: Path, feature: str) -> list[Any]:
    found: list[Any] = dtap_dask.vocabulary(str(path), feature)["value"].to_pylist()
    return found


def test_ids_stay_and_new_words_follow(old: Path, tmp_path: Path) -> None:
    options = {name: {**one, "append_to": str(old)} for name, one in FEATURES.items()}
    run_in_process(job(tmp_path, "new", NEW, options, {"append_to": str(old)}))
    new = tmp_path / "new"
    for column in FEATURES:
        earlier = words(old, column)
        counts = Counter(pa.chunked_array(NEW[column]).drop_null().to_pylist() if column != "tags" else "zzy")
        rest = sorted(counts.keys() - set(earlier), key=lambda word: (-counts[word], word))
        assert words(new, column) == earlier + rest
    run_in_process({**job(tmp_path, "peer", NEW, options, {"append_to": str(old)}), "fit": "dask_ml"})
    for column in (*FEATURES, "paid"):
        assert dtap_dask.vocabulary(str(new), column) == dtap_dask.vocabulary(str(tmp_path / "peer"), column)
    table = dtap_dask.vocabulary(str(new), "word")
    assert table.to_pydict() == {"id": [3, 4, 5, 6, 7], "value": [*"badec"], "count": [1, 0, 2, 2, 1]}
    rows = pa.Table.from_pylist([{"word": word, "number": 1, "flag": True, "tags": []} for word in [*"badecf"]])
    before, after = (np.array(dtap_dask.transform(str(path), rows)["word"]) for path in (old, new))
    assert before[:2].tolist() == after[:2].tolist() == [3, 4]
    assert after[2:5].tolist() == [5, 6, 7]
    assert words(old, "flag") == [1]
    assert words(new, "flag") == [1, 0]
    assert "append_to" in (new / "transform.json").read_text()
    assert str(old) not in (new / "transform.json").read_text()


def test_a_label_keeps_its_classes(old: Path, tmp_path: Path) -> None:
    manifest = run_in_process(job(tmp_path, "new", NEW, {"number": {}}, {"append_to": str(old)}))
    [label] = [feature for feature in manifest.features if feature.role == "label"]
    assert label.classes == ("no", "yes", "perhaps")


def test_bounds_apply_to_the_new_words(old: Path, tmp_path: Path) -> None:
    options = {"word": {"oov_buckets": 2, "append_to": str(old), "top_k": 3}}
    run_in_process(job(tmp_path, "few", NEW, options))
    assert words(tmp_path / "few", "word") == ["b", "a", "d"]
    run_in_process(job(tmp_path, "none", NEW, {"word": {"oov_buckets": 2, "append_to": str(old), "top_k": 1}}))
    assert words(tmp_path / "none", "word") == ["b", "a"]
    run_in_process(job(tmp_path, "often", NEW, {"number": {"append_to": str(old), "min_count": 3}}))
    assert words(tmp_path / "often", "number") == [3, 7, 9]


@pytest.mark.parametrize("bound", [{}, {"top_k": 10}])
def test_a_forecast_counts_the_earlier_words(tmp_path: Path, bound: dict[str, int]) -> None:
    many = pa.table({"number": range(300), "paid": ["no"] * 300})
    run_in_process(job(tmp_path, "earlier", many, {"number": {}}))
    asked = job(tmp_path, "new", NEW, {"number": {**bound, "append_to": str(tmp_path / "earlier")}})
    plan = make_plan(asked)
    size = planned_row_bytes(plan, run_in_process(asked).infos)
    assert forecast(plan).row_bytes == (size, size)


def test_the_earlier_vocabulary_is_part_of_the_fingerprint(old: Path, tmp_path: Path) -> None:
    asked = job(tmp_path, "new", NEW, {"number": {"append_to": str(tmp_path / "earlier")}})
    run_in_process(job(tmp_path, "earlier", OLD, {"number": {}}))
    first = make_plan(asked).fingerprint
    assert make_plan(asked).fingerprint == first
    run_in_process(job(tmp_path, "earlier", OLD.slice(0, 1), {"number": {}}), overwrite=True)
    assert make_plan(asked).fingerprint != first


# The feature, its options besides append_to, and a part of the message.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no dataset": ({"columns": ["word"], "path": "nowhere"}, "ordinal_encode.append_to: "),
    "no such feature": ({"columns": ["word"], "as": "wrd"}, "the dataset has no column 'wrd'. Did you mean 'word'?"),
    "not a feature": ({"columns": ["word"], "as": "paid_"}, "the dataset has no column 'paid_'"),
    "a label": ({"columns": ["word"], "as": "paid"}, "it is a label there and a feature here"),
    "buckets": ({"columns": ["word"], "options": {"oov_buckets": 1}}, "Give it `oov_buckets: 2`"),
    "another type": ({"columns": ["word"], "as": "number"}, "it holds int32, and the column is text"),
    "text for numbers": ({"columns": ["number"], "as": "tags"}, "it holds text, and the column is a whole number"),
    "other first words": ({"columns": ["tags"], "options": {"first": ["some"]}}, "does not begin with the words of"),
    "a vocabulary too": ({"columns": ["tags"], "options": {"vocabulary": ["some"]}}, "leave `append_to` out"),
    "a vector": ({"columns": ["number", "flag"], "name": "both"}, "a vector has no vocabulary of its own"),
    "its own output": ({"columns": ["number"], "path": "new"}, "it is the folder that this job writes to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_move_ids_is_refused(case: str, old: Path, tmp_path: Path) -> None:
    feature, message = REFUSED[case]
    feature = dict(feature)
    path = str(tmp_path / feature.pop("path")) if "path" in feature else str(old)
    options = {"append_to": path, **feature.pop("options", {})}
    asked = {**job(tmp_path, "new", NEW, {}), "features": [{**feature, "steps": [{"ordinal_encode": options}]}]}
    del asked["label"]
    with pytest.raises(JobError) as error:
        make_plan(asked)
    assert message in str(error.value)
    assert "features[0]" in str(error.value)
