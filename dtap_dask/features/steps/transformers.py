"""Transformers of scikit-learn, dask-ml and modules that a user allows, by their import path."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from dtap_dask.errors import JobError
from dtap_dask.features.steps.valuetype import Unfit

_allowed = ["sklearn", "dask_ml"]

# What dask-ml computes otherwise than it says, or than scikit-learn: the step that is right, and what is wrong.
WRONG = {
    "Categorizer": ("ordinal_encode", "it makes values that it has not seen null"),
    "CountVectorizer": ("tokenize and multi_hot", "it takes bags of text only"),
    "DummyEncoder": ("one_hot_encode", "it takes the categories of the rows at hand for those that it has learnt"),
    "FeatureHasher": ("text_hash", "it takes bags of text only"),
    "HashingVectorizer": ("text_hash", "it takes bags of text only"),
    "IncrementalPCA": ("pca", "its components are those of batches of few rows, far from those of all"),
    "LabelEncoder": ("ordinal_encode", "it gives labels that it has not seen the codes of others"),
    "MinMaxScaler": ("minmax_scale", "one null makes a whole column null, and it ignores `clip`"),
    "OneHotEncoder": ("one_hot_encode", "it lets values pass that it has not seen, whatever handle_unknown says"),
    "OrdinalEncoder": ("ordinal_encode", "it takes the categories of the rows at hand for those that it has learnt"),
    "PCA": ("pca", "it does not take the parameters that today's scikit-learn gives it, nor nulls"),
    "PolynomialFeatures": ("polynomial", "it gives whole numbers a wrong type"),
    "QuantileTransformer": ("quantile_transform", "its quantiles are of parts of the rows, far from those of all"),
    "RobustScaler": ("robust_scale", "its quantiles are of parts of the rows, far from those of all"),
    "SimpleImputer": ("impute", "its median is not that of all rows, and of equally frequent values it takes any"),
}


def allow_estimators(*modules: str) -> None:
    """Let the step `estimator`, and datasets that were made with it, import from further top-level modules.

    For the whole process; tasks of a run, and a submitted job, take it along. Importing a module runs its code: allow
    only what you trust.
    """
    for module in modules:
        if not module.isidentifier():
            raise JobError(f"--allow-estimators takes the name of a top-level module, such as umap, not {module!r}.")
        if module not in _allowed:
            _allowed.append(module)


def allowed_estimators() -> tuple[str, ...]:
    """The top-level modules from which transformers may come."""
    return tuple(_allowed)


def transformer_class(path: str) -> type[Any]:
    """The class at an import path. Raises `Unfit` where it is not allowed, or is none."""
    module, _, name = path.rpartition(".")
    top = module.partition(".")[0]
    if not top or not all(part.isidentifier() for part in path.split(".")):
        raise Unfit(f"`path` takes the import path of a class, such as sklearn.decomposition.FastICA, not {path!r}.")
    if top not in _allowed:
        raise Unfit(
            f"module {top!r} is not allowed: {', '.join(_allowed)} are. If you trust its code, give "
            f"--allow-estimators {top} (in Python dtap_dask.allow_estimators({top!r}))."
        )
    try:
        found = getattr(import_module(module), name)
    except AttributeError as error:
        raise Unfit(f"module {module!r} has no {name!r}.") from error
    except Exception as error:
        raise Unfit(f"{path} cannot be imported: {_why(error)}.") from error
    if not inspect.isclass(found):
        raise Unfit(f"{path} is no class, but {type(found).__name__}.")
    if found.__module__.partition(".")[0] not in _allowed:  # a module's own import of another's class
        raise Unfit(f"{path} is {found.__module__}.{found.__name__}, whose module is not allowed.")
    return found


def transformer(path: str, parameters: Mapping[str, Any]) -> Any:
    """A new transformer. Raises `Unfit` where it cannot be one, or cannot be used on numbers without a label."""
    kind = transformer_class(path)
    if not all(callable(getattr(kind, method, None)) for method in ("fit", "transform", "get_params")):
        raise Unfit(f"{path} is no transformer: it lacks `fit`, `transform` or `get_params`.")
    if kind.__module__.startswith("dask_ml.") and kind.__name__ in WRONG:
        step, why = WRONG[kind.__name__]
        raise Unfit(f"{path} is not offered: {why}. Use the step {step}.")
    made = _made(kind, path, parameters)
    given = made.get_params(deep=False)
    if given.get("memory") is not None:
        raise Unfit(f"{path} with `memory` would read pickles from a folder. Leave `memory` out.")
    if "random_state" in given and not isinstance(given["random_state"], int):
        raise Unfit(f"{path} draws random numbers. Fix them with `parameters: {{random_state: 0}}`.")
    _check_tags(made, path)
    return made


def _made(kind: type[Any], path: str, parameters: Mapping[str, Any]) -> Any:
    """With its parameters as they are, or where these are wrong with its lists as tuples, which YAML does not have."""
    known = [one for one in inspect.signature(kind).parameters.values() if one.kind != one.VAR_KEYWORD]
    unknown = [name for name in parameters if name not in {one.name for one in known}]
    if unknown:
        names = ", ".join(one.name for one in known) or "none"
        raise Unfit(f"{path} has no parameter {unknown[0]!r}; it has {names}.")
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    wrong: Exception | None = None
    for given in (parameters, tuples):
        try:
            made = kind(**given)
            if hasattr(made, "_parameter_constraints"):
                made._validate_params()
            return made
        except Exception as error:
            wrong = wrong or error
    assert wrong is not None
    raise Unfit(f"{path} does not take these parameters: {_why(wrong)}.") from wrong


def _check_tags(made: Any, path: str) -> None:
    """Refuse what learns from a label, and what takes no rows of numbers, as far as it says so itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of estimators that are older than tags
            tags = made.__sklearn_tags__()
    except (AttributeError, TypeError):
        return
    if tags.target_tags.required:
        raise Unfit(f"{path} learns from a label, which a transformer here does not get. Of categories, target_encode "
                    "learns from the label.")  # fmt: skip
    if not tags.input_tags.two_d_array:
        raise Unfit(f"{path} takes no rows of numbers. For text there are tokenize and text_hash.")


def _why(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__
