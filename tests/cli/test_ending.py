"""The end of a command's process: in Python's order, and whatever threads of libraries still want of Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from documents import Document
from in_process import run_in_process
from waiting import HANG

COMMAND = "import sys; sys.argv[1:] = {words}; from dtap_dask.cli import main; main()"
# A thread of pyarrow's reads a Python file, whose bytes come when Python is about to be taken apart.
LATE = """
import atexit, io, os, threading
import pyarrow as pa, pyarrow.parquet as pq

at_end, writing = os.pipe()
atexit.register(os.close, writing)
begun, late = threading.Event(), False

class Late(io.BytesIO):
    def read(self, size=-1):
        if late:
            begun.set()
            os.read(at_end, 1)
        return super().read(size)

content = io.BytesIO()
pq.write_table(pa.table({"x": range(1000)}), content)
file = pq.ParquetFile(pa.PythonFile(Late(content.getvalue()), mode="r"), pre_buffer=True)
late = True
threading.Thread(target=file.read, daemon=True).start()
begun.wait()
"""
# Registered before and after, and a thread that ends last of all that is waited for.
ORDER = """
import atexit, sys, threading, time

def report(what):
    print(what, flush=what != "unflushed")

def outlive():
    while threading.main_thread().is_alive():
        time.sleep(0.001)
    report("thread")

atexit.register(report, "unflushed")
atexit.register(report, "atexit")
threading.Thread(target=outlive).start()
"""
FITTED = """
import os
from dtap_dask.features import FittedState
from dtap_dask.storage import open_store

store = open_store({path!r})
before = os.listdir("/proc/self/task")
state = FittedState.load(store)
assert any(state.vocabulary_files.values())
assert os.listdir("/proc/self/task") == before
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG, check=False)


def test_a_thread_of_a_library_that_wants_python_at_the_end_does_not_abort_the_command() -> None:
    done = python(LATE + COMMAND.format(words=["--version"]))
    assert (done.returncode, done.stdout.startswith("dtap-dask, version "), done.stderr) == (0, True, "")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="from 3.14 on such a thread waits for ever")
def test_that_thread_aborts_a_program_that_ends_as_python_does() -> None:
    # once in many times the process is gone before the thread asks for Python
    assert any(python(LATE).returncode == -6 for _ in range(5))


@pytest.mark.parametrize(("words", "status"), [(["--version"], 0), (["plan", "nothing"], 2), (["nothing"], 2)])
def test_threads_and_what_is_registered_come_before_the_end(words: list[str], status: int) -> None:
    done = python(ORDER + COMMAND.format(words=words))
    assert done.returncode == status
    assert done.stdout.splitlines()[-3:] == ["thread", "atexit", "unflushed"]
    assert "Traceback" not in done.stderr


def test_a_mistake_of_ours_is_shown_and_has_a_status() -> None:
    broken = "import dtap_dask.docs.pages; del dtap_dask.docs.pages.print_docs; "
    done = python(broken + COMMAND.format(words=["docs"]))
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "cannot import name 'print_docs'" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted where Linux lists them")
def test_what_was_learnt_is_read_without_threads(job: Document, tmp_path: Path) -> None:
    """Those of pyarrow's pools release what they have read whenever they like, the end of Python included."""
    run_in_process(job, limit=2000)
    done = python(FITTED.format(path=str(tmp_path / "out")))
    assert (done.returncode, done.stderr) == (0, "")
