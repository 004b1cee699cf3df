"""The house's rules, checked by machine: layers, types, style, and what an import brings with it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_contracts_are_kept() -> None:
    # In a process of its own: it configures logging, which disables every logger that there is, ours too.
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", lint, "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"{len(contracts)} kept, 0 broken" in done.stdout


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


@pytest.mark.parametrize("room", ["records", "features", "lake", "storage"])
def test_rooms_below_the_job_know_neither_dask_nor_tensorflow(room: str) -> None:
    modules = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "dtap_dask" / room).rglob("*.py"))]
    loaded = modules_after("; ".join(f"import {'.'.join(module.parts)}" for module in modules))
    assert not loaded & {"dask", "distributed", "dask_ml", "tensorflow", "keras"}


def test_what_workers_import_is_free_of_tensorflow() -> None:
    loaded = modules_after("import dtap_dask.job.execution.tasks")
    assert not loaded & {"tensorflow", "keras"}
    assert "pyarrow" in loaded


def test_loading_is_free_of_dask() -> None:
    loaded = modules_after("import dtap_dask; dtap_dask.load; dtap_dask.inputs")
    assert "tensorflow" in loaded
    assert not loaded & {"dask", "distributed", "dask_ml"}


def test_all_public_names_exist() -> None:
    import dtap_dask

    assert [name for name in dtap_dask.__all__ if not callable(getattr(dtap_dask, name))] == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(dtap_dask, "nonsense")  # noqa: B009
