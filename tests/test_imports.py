"""The rules of this repository that a machine can check: layers, types, style, and what an import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import warm

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PRINTING = "import sys; {}; print(*{{name.split('.')[0] for name in sys.modules}})"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def modules_after(statement: str, python: str = sys.executable) -> set[str]:
    command = [python, "-c", PRINTING.format(statement)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_contracts_are_kept() -> None:
    # In a process of its own: it configures logging, which disables every logger that there is, ours too.
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", lint, "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


@pytest.mark.parametrize("command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)])
def test_style_and_types(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_is_light() -> None:
    loaded = modules_after("import dtap_dask; dtap_dask.__version__; dir(dtap_dask)")
    assert "dtap_dask" in loaded
    assert not loaded & {"dask", "distributed", "dask_ml", "tensorflow", "keras", "pyarrow", "pandas", "sklearn"}


def test_help_is_light() -> None:
    loaded = modules_after("import dtap_dask.cli")
    assert not loaded & {"dask", "distributed", "dask_ml", "tensorflow", "keras", "pyarrow", "numpy"}


def test_what_is_below_job_and_train_loads_neither_dask_nor_tensorflow() -> None:
    """Also by way of other packages, which the contract does not see."""
    (contract,) = [one for one in CONTRACTS if one["name"] == "Below job and train neither Dask nor TensorFlow"]
    roots = [ROOT.joinpath(*name.split(".")) for name in contract["source_modules"]]
    files = [path for root in roots for path in (sorted(root.rglob("*.py")) or [root.with_suffix(".py")])]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    assert len(modules) > len(roots)
    assert not modules_after(f"import {', '.join(modules)}") & {*contract["forbidden_modules"]}


def test_the_packages_of_job_are_described_in_the_order_of_their_contract() -> None:
    (contract,) = [one for one in CONTRACTS if one.get("containers") == ["dtap_dask.job"]]
    level = {name: at for at, names in enumerate(reversed(contract["layers"])) for name in names.split(" | ")}
    text = ast.get_docstring(ast.parse((ROOT / "dtap_dask" / "job" / "__init__.py").read_text())) or ""
    lines = [line for line in text.splitlines()[2:] if line]
    names = [name for line in lines for name in line.partition("  ")[0].split(", ")]
    assert sorted(names) == sorted(level)
    assert [level[name] for name in names] == sorted(level[name] for name in names)


def test_what_workers_import_is_free_of_tensorflow() -> None:
    loaded = modules_after("import dtap_dask.job.execution.tasks")
    assert not loaded & {"tensorflow", "keras"}
    assert "pyarrow" in loaded


def test_loading_is_free_of_dask() -> None:
    """The process has imported TensorFlow and Keras beforehand, and nothing else."""
    loaded = modules_after("import dtap_dask; dtap_dask.load; dtap_dask.inputs", warm.python("tensorflow"))
    assert {"tensorflow", "dtap_dask"} <= loaded
    assert not loaded & {"dask", "distributed", "dask_ml"}


def test_all_public_names_exist() -> None:
    import dtap_dask

    checked = next(node for node in ast.parse(Path(dtap_dask.__file__).read_text()).body if isinstance(node, ast.If))
    for_types = {
        name.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert for_types == dtap_dask._MODULES
    assert sorted(for_types) == dtap_dask.__all__
    assert [name for name in dtap_dask.__all__ if not callable(getattr(dtap_dask, name))] == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(dtap_dask, "nonsense")  # noqa: B009
