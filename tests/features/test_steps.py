"""Steps as the job file writes them: every mistake is named, with what would be valid."""

from __future__ import annotations

import pytest

from dtap_dask.errors import JobError
from dtap_dask.features import STEPS, parse_step


def test_every_step_survives_its_own_document():
    examples = {
        "bucketize": {"quantiles": 3},
        "estimator": "sklearn.decomposition.FastICA",
        "datetime_parts": "hour",
        "hash_encode": {"buckets": 9},
        "first": 2,
        "last": 2,
        "text_hash": 9,
        "pad": 2,
        "pca": {"n_components": 2},
        "cast": {"dtype": "int8"},
        "clip": {"min": 0},
    }
    for name in STEPS:
        step = parse_step(name, examples.get(name))
        assert parse_step(step.name, step.model_dump(mode="json")) == step
        assert hash(step) == hash(parse_step(step.name, step.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("name", "scalar", "option"),
    [
        ("cast", "float64", "dtype"),
        ("hash_encode", 9, "buckets"),
        ("pca", 2, "n_components"),
        ("ordinal_encode", 5, "top_k"),
        ("minmax_scale", [0, 2], "feature_range"),
    ],
)
def test_one_obvious_option_may_stand_alone(name, scalar, option):
    assert parse_step(name, scalar) == parse_step(name, {option: scalar})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("standard_scal", {}, "Did you mean 'standard_scale'"),
        ("clip", {"mim": 1, "min": 0}, r"clip.mim: unknown key 'mim'. Did you mean 'min'"),
        ("clip", {}, "clip: needs `min`, `max` or both"),
        ("clip", {"min": 3, "max": 1}, "3 is above `max` 1"),
        ("clip", {"min": "low"}, r"clip.min: found 'low': a number is needed"),
        (
            "impute",
            {"strategy": "avg"},
            r"impute.strategy: found 'avg', valid are 'mean', 'median', 'most_frequent' or 'constant'",
        ),
        ("impute", {"strategy": "constant"}, "needs `value`"),
        ("impute", {"value": 3}, "goes with strategy constant, not mean"),
        ("hash_encode", None, "hash_encode.buckets: this key is required: a whole number"),
        ("hash_encode", {"buckets": 0}, "a number of at least 1 is needed"),
        ("minmax_scale", {"feature_range": [1, 0]}, "the lower first"),
        ("log1p", 3, "takes options by name"),
        ("cast", "complex64", r"cast.dtype: found 'complex64', valid are 'float16'"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(JobError, match=message):
        parse_step(name, options)


def test_all_mistakes_of_a_step_come_at_once():
    with pytest.raises(JobError) as error:
        parse_step("ordinal_encode", {"top_k": 0, "oov_bucket": 3, "null": "skip"})
    assert [problem.place for problem in error.value.problems] == [
        "ordinal_encode.top_k",
        "ordinal_encode.null",
        "ordinal_encode.oov_bucket",
    ]
