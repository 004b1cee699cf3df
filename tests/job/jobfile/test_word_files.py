"""`vocabulary: FILE`: read once, when a job is prepared; part of the fingerprint; refused by line where it is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
from dtap_dask.errors import JobError
from dtap_dask.features import FittedState
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.preview import preview
from dtap_dask.storage import Store, open_store
from in_process import run_in_process

ROWS = pa.table(
    {
        "word": pa.array(["red", "blue", None, "green"]),
        "number": pa.array([7, 300, None, 5], pa.int16()),
        "flag": pa.array([True, False, None, True]),
        "tags": pa.array([["red"], [], ["blue", "none"], ["green"]]),
        "paid": pa.array(["yes", "no", "no", "yes"]),
    }
)


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def job(folder: Path, *features: Any, label: Any = None, output: str = "out") -> dict[str, Any]:
    if not (folder / "lake.parquet").exists():
        pq.write_table(ROWS, folder / "lake.parquet")
    return {
        "version": 1,
        "source": {"path": str(folder / "lake.parquet")},
        "label": label,
        "features": [{"columns": [column], "steps": [{"ordinal_encode": options}]} for column, options in features],
        "output": {"path": str(folder / output), "shuffle": "none"},
    }


def encoded(folder: Path, column: str) -> list[Any]:
    made = dtap_dask.transform(str(folder / "out"), ROWS)
    return [value.as_py() for value in made.column(column)] if isinstance(made, pa.Table) else list(made[column])


def test_a_file_gives_the_ids_without_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words.txt").write_bytes("green\r\nred\nü\n".encode())
    (tmp_path / "numbers.parquet").write_bytes(parquet(id=[0, 1], value=pa.array([300, 7], pa.int64())))
    read: list[str] = []
    monkeypatch.setattr(Store, "read_bytes", _recording(read, Store.read_bytes))
    words, numbers = str(tmp_path / "words.txt"), str(tmp_path / "numbers.parquet")
    asked = job(
        tmp_path,
        ("word", {"vocabulary": words, "oov_buckets": 2}),
        ("number", {"vocabulary": numbers}),
        ("flag", {"vocabulary": [True, False]}),
        ("tags", {"vocabulary": words}),
        label={"column": "paid", "steps": [{"ordinal_encode": {"vocabulary": ["no", "yes"]}}]},
    )
    assert make_plan(asked).checked.graph.passes == 0
    read.clear()
    manifest = run_in_process(asked)
    assert sorted(path for path in read if path.endswith((".txt", "numbers.parquet"))) == [
        "numbers.parquet",
        "words.txt",
    ]
    assert [feature.ids for feature in manifest.features][:4] == [6, 4, 4, 5]
    out = str(tmp_path / "out")
    state = FittedState.load(open_store(out))
    assert state.infos[-1].classes == ("no", "yes")
    assert encoded(tmp_path, "number") == [3, 2, 0, 1]
    assert encoded(tmp_path, "flag") == [2, 3, 0, 2]
    assert [list(row) for row in encoded(tmp_path, "tags")] == [[3], [], [1, 1], [2]]
    assert encoded(tmp_path, "word")[0::3] == [4, 3]
    assert dtap_dask.vocabulary(out, "word").to_pydict() == {"id": [3, 4, 5], "value": ["green", "red", "ü"]}
    assert list(dtap_dask.inverse(out, "word", [0, 1, 3, 5])) == [None, None, "green", "ü"]
    saved = (tmp_path / "out" / "transform.json").read_text()
    assert words not in saved
    assert json.loads(saved)["passes"] == 0


def _recording(read: list[str], original: Any) -> Any:
    def read_bytes(self: Store, path: str) -> bytes:
        read.append(path)
        found: bytes = original(self, path)
        return found

    return read_bytes


def test_the_content_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("red\nblue\n")
    asked = job(tmp_path, ("word", {"vocabulary": str(path)}))
    first = make_plan(asked).fingerprint
    assert make_plan(asked).fingerprint == first
    path.write_text("blue\nred\n")
    assert make_plan(asked).fingerprint != first
    assert dtap_dask.plan(job(tmp_path, ("word", {"vocabulary": ["red"]}))).fingerprint != first


def test_any_store_and_paths_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fsspec.open("memory://given/words.txt", "wb") as file:
        file.write(b"blue\n")
    (tmp_path / "words.txt").write_text("red\n")
    monkeypatch.chdir(tmp_path)
    asked = job(tmp_path, ("word", {"vocabulary": "memory://given/words.txt"}), ("paid", {"vocabulary": "words.txt"}))
    fitted = make_plan(asked).checked.state.fitted
    assert [learnt["vocabulary"].to_pylist() for learnt in fitted.values()] == [["blue"], ["red"]]


def test_a_probe_and_a_preview_take_the_words_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("red\ngreen\n")
    asked = job(tmp_path, ("word", {"vocabulary": str(tmp_path / "words.txt")}), ("paid", {}))
    assert "ordinal_encode" in repr(dtap_dask.plan(asked))
    assert preview(asked)["word"].tolist() == [2, 1, 0, 3]
    run_in_process(asked, probe=True)
    assert encoded(tmp_path, "word") == [2, 1, 0, 3]


# The column, the content of the file, and a part of the message.
REFUSED: dict[str, tuple[str, bytes | None, str]] = {
    "no file": ("word", None, "words: there is no such file"),
    "empty": ("word", b"", "words: it holds no word"),
    "an empty line": ("word", b"a\n\nb\n", "line 2 is empty"),
    "twice": ("word", b"a\nb\nc\nb\n", "lines 2 and 4 are both 'b'"),
    "twice in Parquet": ("number", parquet(x=[3, 4, 3]), "rows 1 and 3 are both 3"),
    "null": ("word", parquet(x=["a", None]), "row 2 is null"),
    "two columns": ("word", parquet(x=["a"], y=["b"]), "it has the columns x, y: one is needed, or one named `value`"),
    "floats": ("word", parquet(x=[1.5]), "column 'x' is double: text, integers or booleans are needed"),
    "no Parquet": ("word", b"PAR1 and PAR1", "it begins and ends as a Parquet file, and cannot be read"),
    "numbers for text": ("word", parquet(x=[1]), "it holds int64, and the column is text"),
    "text for numbers": ("number", parquet(x=["1"]), "it holds text, and the column is a whole number"),
    "no number": ("number", b"1\n+2\n", "line 2, '+2', is no whole number"),
    "leading zero": ("number", b"1\n02\n", "line 2, '02', is no whole number"),
    "out of range": ("number", b"1\n40000\n", "line 2, '40000', is outside the range of int16, the column's type"),
    "far out of range": ("number", b"1\n99999999999999999999\n", "numbers outside the range of int16"),
    "out of range in Parquet": ("number", parquet(x=[70000]), "row 1, 70000, is outside the range of int16"),
    "no boolean": ("flag", b"true\nyes\n", "line 2, 'yes', is neither true nor false"),
    "text for booleans": ("flag", parquet(x=["true"]), "it holds text, and the column is true or false"),
    "text for numbers in lists": ("tags", parquet(x=[3]), "it holds int64, and the column is text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_a_file_is_said(case: str, tmp_path: Path) -> None:
    column, content, message = REFUSED[case]
    if content is not None:
        (tmp_path / "words").write_bytes(content)
    with pytest.raises(JobError) as error:
        make_plan(job(tmp_path, (column, {"vocabulary": str(tmp_path / "words")})))
    assert message in str(error.value)
    assert "features[0]" in str(error.value)
    assert "vocabulary" in str(error.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"features\[0\].steps\[0\].*ordinal_encode.vocabulary: .*folder"):
        make_plan(job(tmp_path, ("word", {"vocabulary": str(tmp_path)})))


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"1\nx\n")
    bad = job(tmp_path, ("number", {"vocabulary": str(tmp_path / "words")}), ("word", {"vocabulary": "missing.txt"}))
    bad["features"].append({"columns": ["wrod"]})
    with pytest.raises(JobError) as error:
        make_plan(bad)
    assert len(error.value.problems) == 3
    assert "missing.txt: there is no such file" in str(error.value)
    assert "'wrod'" in str(error.value)
    assert "line 2, 'x', is no whole number" in str(error.value)
