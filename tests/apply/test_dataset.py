"""Features in groups that are computed apart: which they are, and that each has all that it needs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.apply.dataset import disjoint, open_features
from in_process import run_in_process
from property_tests import examples

COLUMNS = st.lists(st.sampled_from("abcdefgh"), max_size=4, unique=True)


@examples(1)
@given(st.dictionaries(st.integers(0, 20).map(str), COLUMNS))
def test_groups_have_no_column_in_common(columns: dict[str, list[str]]) -> None:
    expected: list[tuple[set[str], set[str]]] = []  # names and columns, merged one by one
    for name, used in columns.items():
        joined = [one for one in expected if one[1] & set(used) or not (one[1] or used)]
        names, together = {name}.union(*(one[0] for one in joined)), set(used).union(*(one[1] for one in joined))
        expected = [*(one for one in expected if one not in joined), (names, together)]
    groups = disjoint(columns)
    assert sorted(map(sorted, groups)) == sorted(sorted(names) for names, _ in expected)
    firsts = [list(columns).index(names[0]) for names in groups]
    assert firsts == sorted(firsts)


def test_groups_follow_from_the_columns_of_the_lake(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0, 2.0, 4.0], "b": [1.0, 3.0, 2.0], "c": ["x", "y", "x"], "d": [1, 2, 3], "e": [5, 6, 7]})
    pq.write_table(table, tmp_path / "rows.parquet")
    features = [
        {"columns": ["a", "sum"], "steps": ["standard_scale"]},
        {"columns": ["d", "e"], "steps": ["minmax_scale"], "name": "both"},
        {"columns": ["c"], "steps": ["ordinal_encode"]},
        {"columns": ["one"], "steps": ["passthrough"]},
        {"columns": ["b"], "steps": ["minmax_scale"], "as": "small"},
        {"columns": ["d"], "steps": ["ordinal_encode"], "as": "id"},
    ]
    derive = {"sum": "a + b", "one": "1"}
    source = {"path": str(tmp_path / "rows.parquet")}
    output = {"path": str(tmp_path / "out")}
    run_in_process({"version": 1, "source": source, "derive": derive, "features": features, "output": output})
    opened = open_features(tmp_path / "out")
    found = [([info.name for info in one.infos], one.raw.schema.names) for one in opened.apart]
    assert found == [(["a", "sum", "small"], ["a", "b"]), (["both", "id"], ["d", "e"]), (["c"], ["c"]), (["one"], [])]
    rows = table.combine_chunks().to_batches()[0]
    together = opened.together.apply(rows)
    for group in opened.apart:
        apart = group.apply(rows.select(group.raw.schema.names))
        assert {name: values.tolist() for name, values in apart.items()} == {
            info.name: together[info.name].tolist() for info in group.infos
        }
