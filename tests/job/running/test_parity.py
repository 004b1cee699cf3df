"""Each run ends with rows of the source through the fitted features, compared with the records that it wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtap_dask.apply import parity
from dtap_dask.errors import DataError, InterruptedRun, OutputError
from dtap_dask.features import FeatureSpec, Rows, Transform, build, parse_step
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.info import FeatureInfo
from dtap_dask.job.status.folder import read_runs
from dtap_dask.records.example import decode_records, encoder_of
from dtap_dask.records.manifest import Manifest, ParityEntry
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.tfrecord import read_records
from dtap_dask.storage import open_store
from in_process import interrupt, run_in_process

ROWS = 6000


def job_on(folder: Path, **output: Any) -> dict[str, Any]:
    """A job with features of every shape over three files of ten row groups each."""
    rng = np.random.default_rng(0)
    for month in range(3):
        rows = np.arange(ROWS // 3) + ROWS // 3 * month
        table = pa.table(
            {
                "id": rows,
                "x": pa.array(rng.normal(size=len(rows)), mask=rng.random(len(rows)) < 0.1),
                "word": pa.array([f"w{row % 11}" if row % 5 else None for row in rows.tolist()]),
                "tags": pa.array([["a", "b", "c"][: row % 4] for row in rows.tolist()]),
            }
        )
        (folder / f"lake/month={month}").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"lake/month={month}/a.parquet", row_group_size=len(rows) // 10)
    return {
        "version": 1,
        "source": {"path": str(folder / "lake"), "where": "id % 7 <> 3"},
        "derive": {"half": "id / 2", "more": "half + month", "good": "id % 3 = 0"},
        "split": {"parts": {"train": 0.7, "eval": 0.3}},
        "label": "good",
        "keep": ["id"],
        "features": [
            {"columns": ["x"], "steps": [{"impute": {"indicator": True}}, "standard_scale"]},
            {"columns": ["word"], "steps": ["ordinal_encode"]},
            {"columns": ["word"], "as": "mean", "steps": [{"target_encode": {"target_type": "binary"}}]},
            {"columns": ["word"], "as": "text", "steps": [{"impute": {"strategy": "constant", "value": "?"}}]},
            {"columns": ["half", "more"], "steps": ["minmax_scale"], "name": "both"},
            {"columns": ["tags"], "steps": [{"hash_encode": 16}]},
        ],
        "output": {"path": str(folder / "out"), **output},
    }


@pytest.mark.parametrize("shuffle", ["none", "mixed", "global"])
@pytest.mark.parametrize(("layout", "compression"), [("blocks", "none"), ("blocks", "gzip"), ("rows", "gzip")])
def test_rows_give_their_records(tmp_path: Path, layout: str, compression: str, shuffle: str) -> None:
    output = {"layout": layout, "compression": compression, "shuffle": shuffle, "shard_size": "16KiB"}
    manifest = run_in_process(job_on(tmp_path, **output))
    assert len(manifest.splits["train"].shards) > 4
    assert manifest.parity == ParityEntry(rows=64, differing=0)
    assert json.loads((tmp_path / "out/manifest.json").read_text())["parity"] == {"rows": 64, "differing": 0}
    assert manifest.in_words().endswith("\n  transform: 64 rows of the source match their records")


def test_rare_rows_and_parts_without_rows(tmp_path: Path) -> None:
    job = job_on(tmp_path)
    job["source"]["where"] = "id in (777, 4001, 5999)"
    job["split"] = {"where": {"train": "id < 4500", "eval": "id > 7000"}}
    job["features"] = job["features"][4:]
    manifest = run_in_process(job)
    assert {name: part.rows for name, part in manifest.splits.items()} == {"train": 2, "eval": 0}
    assert manifest.parity is not None
    assert (manifest.parity.rows > 0, manifest.parity.differing) == (True, 0)


def test_an_interrupted_run_compares_the_same_rows(tmp_path: Path) -> None:
    job = job_on(tmp_path)
    whole = run_in_process(job)
    with pytest.raises(InterruptedRun):
        run_in_process(job, overwrite=True, before={"compare": interrupt})
    assert run_in_process(job, resume=True) == whole


def changed(manifest: Manifest, folder: Path, split: str, name: str) -> None:
    """Make a feature of every record of a split another one; files keep their sizes."""
    store = open_store(str(folder))
    for shard in manifest.splits[split].shards:
        rows = decode_records(manifest.infos, manifest.layout, list(read_records(store, shard.path)))
        rows[name] = rows[name] + 1
        encoder = encoder_of(manifest.infos, manifest.layout)
        store.write_atomic(shard.path, bytes(encoder.encode_packed(encoder.pack(rows)).data))


def test_records_that_differ_fail_the_run_and_are_described(tmp_path: Path) -> None:
    job, out = job_on(tmp_path), tmp_path / "out"
    first = run_in_process(job)
    changing = {"compare": lambda: changed(first, out, "eval", "both")}
    with pytest.raises(OutputError, match=r"\d+ of 64 rows of the source .* gives them, in 'both'; .* report this"):
        run_in_process(job, overwrite=True, before=changing)
    manifest = read_manifest(open_store(str(out)))
    assert manifest.parity is not None
    assert 0 < manifest.parity.differing < manifest.parity.rows == 64
    assert f"transform: {manifest.parity.differing} of 64 rows of the source differ" in manifest.in_words()
    last = max(read_runs(open_store(str(out))), key=lambda run: run.started)
    described = [text for text in last.warnings if "dtap_dask.transform" in text]
    assert (last.state, len(described)) == ("failed", 3)
    said = (
        r"feature 'both' is \[(.*), .*\] in the records and \[(.*), .*\] by dtap_dask.transform, for id \d+, month \d"
    )
    found = re.fullmatch(said, described[0])
    assert found is not None
    assert float(found[1]) == pytest.approx(float(found[2]) + 1)
    with pytest.raises(OutputError, match=f"{manifest.parity.differing} of 64 rows .* than dtap_dask.transform gives"):
        run_in_process(job, resume=True)


def test_features_out_of_fold_are_compared_where_rows_are_not_fitted(tmp_path: Path) -> None:
    job, out = job_on(tmp_path), tmp_path / "out"
    first = run_in_process(job)
    fitted = {"compare": lambda: changed(first, out, "train", "mean")}
    assert run_in_process(job, overwrite=True, before=fitted).parity == ParityEntry(rows=64, differing=0)
    others = {"compare": lambda: changed(first, out, "eval", "mean")}
    with pytest.raises(OutputError, match="in 'mean'"):
        run_in_process(job, overwrite=True, before=others)


def test_rows_that_are_refused_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Transform):
        def apply(self, rows: pa.RecordBatch) -> Rows:
            if any(number % 5 == 4 for number in rows.column("id").to_pylist()):
                raise DataError("four")
            return super().apply(rows)

    monkeypatch.setattr(parity, "Transform", Refusing)
    job = job_on(tmp_path)
    with pytest.raises(OutputError, match="of 64 rows of the source"):
        run_in_process(job)
    [last] = read_runs(open_store(job["output"]["path"]))
    described = [text for text in last.warnings if "dtap_dask.transform" in text]
    says = r"the row id \d*[49], .* is in the records, and dtap_dask.transform refuses it: four"
    assert [bool(re.fullmatch(says, text)) for text in described] == [True] * 3


def output_of(**steps: Any) -> Output:
    """Two columns through steps, as a vector."""
    schema = pa.schema({"a": pa.float64(), "b": pa.float64()})
    spec = FeatureSpec("f", "feature", ("a", "b"), tuple(map(parse_step, steps, steps.values())), vector=True)
    return build([spec], schema).outputs[0]


PLAIN, SUMS = output_of(standard_scale=None), output_of(pca=2, cast="float32")
NEAR_ONE = output_of(power_transform=None)


@pytest.mark.parametrize(
    ("made", "recorded", "stored", "output", "same"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], "float32", PLAIN, [True, True, True]),
        ([1.0, np.nan, np.inf], [np.nan, 1.0, -np.inf], "float32", PLAIN, [False, False, False]),
        ([1 + 2**-23, 1 + 2**-22], [1.0, 1.0], "float32", PLAIN, [True, False]),
        ([[1e9, 0.5], [1e9 + 64, 0.5]], [[1e9, 0.25], [1e9, 0.5]], "float32", PLAIN, [False, True]),
        ([[8.0, 2**-21], [8.0, 2**-17]], [[8.0, 0.0], [8.0, 0.0]], "float32", SUMS, [True, False]),
        ([2**-23, 2**-22], [0.0, 0.0], "float32", NEAR_ONE, [True, False]),
        ([1 + 2**-30, 1 + 2**-20], [1.0, 1.0], "float64", PLAIN, [True, False]),
        ([3, 4], [3, 5], "int64", PLAIN, [True, False]),
        ([[1, 0], [1, 0]], [[1, 0], [0, 1]], "uint8", PLAIN, [True, False]),
    ],
)
def test_what_is_the_same(made: Any, recorded: Any, stored: str, output: Output, same: list[bool]) -> None:
    info = FeatureInfo("f", "feature", stored, stored, np.array(made).shape[1:], ("a", "b"))
    found = parity.same(np.array(made, stored), np.array(recorded, stored), info, output)
    assert found.tolist() == same


def test_texts_and_lists_that_are_the_same() -> None:
    texts = FeatureInfo("f", "feature", "bytes", "bytes")
    ours, theirs = (pa.array([b"a", b"", one], pa.large_binary()) for one in (b"c", b"d"))
    assert parity.same(ours, theirs, texts, PLAIN).tolist() == [True, True, False]
    lists = FeatureInfo("f", "feature", "float32", "float32", (None,))
    one = pa.array([[1.0, np.nan], [], [1.0], [2.0], [1e9, 0.5]], pa.large_list(pa.float32()))
    other = pa.array([[1.0, np.nan], [], [1.0, 1.0], [3.0], [1e9, 0.25]], pa.large_list(pa.float32()))
    assert parity.same(one, other, lists, PLAIN).tolist() == [True, True, False, False, False]


def test_a_manifest_of_an_earlier_release(tmp_path: Path) -> None:
    run_in_process(job_on(tmp_path))
    path = tmp_path / "out/manifest.json"
    document = json.loads(path.read_text())
    assert document.pop("parity") is not None
    for part in document["splits"].values():
        assert 0 < part.pop("quality") < 1
        assert all(shard.pop("same_group") > 0 for shard in part["shards"])
    path.write_text(json.dumps(document))
    manifest = read_manifest(open_store(str(tmp_path / "out")))
    assert manifest.parity is None
    assert [(part.quality, part.shards[0].same_group) for part in manifest.splits.values()] == [(None, None)] * 2
    assert "transform:" not in manifest.in_words()
