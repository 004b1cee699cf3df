"""Progress in notebooks: one output of bars that is drawn again, nothing on standard error, which they show in red."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from documents import Document
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.notebook import NotebookBars, in_notebook
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.snapshot import Snapshot
from waiting import HANG

BEGUN = Snapshot("r-000000", "r", "/out", "running", 0.0, 0.0, starting=2)


class Displays:
    """In place of IPython's display: keeps what is shown, and what it is replaced by."""

    def __init__(self, fails: bool = False):
        self.shown: list[dict[str, str]] = []
        self.drawn = 0
        self._fails = fails

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Displays:
        assert raw
        assert display_id
        if self._fails:
            raise RuntimeError("the kernel has gone")
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        self.shown[-1] = bundle
        self.drawn += 1


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Displays:
    """IPython with a kernel, as far as progress looks at it."""
    found = Displays(fails=bool(getattr(request, "param", False)))
    module, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    monkeypatch.setattr(module, "get_ipython", lambda: types.SimpleNamespace(kernel=object()), raising=False)
    monkeypatch.setattr(display, "display", found.display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


def a_run(kind: str) -> None:
    with open_display(kind) as display:
        report = RunReporter(BEGUN, display, Secrets())
        report.note("<script> & \x1b[31m")
        report.begin("fit", 1000, 5000, 50_000)
        for _ in range(1000):
            report.advance(5, 50)
        report.end()
        report.update(workers=2)
        report.succeed({})


def test_one_output_that_is_drawn_again(displays: Displays, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_notebook()
    a_run("auto")
    [shown] = displays.shown
    assert "value='1000'" in shown["text/html"]
    assert "1,000/1,000" in shown["text/html"]
    assert "&lt;script&gt; &amp; \\x1b[31m" in shown["text/html"]
    assert "2 workers" in shown["text/html"]
    assert shown["text/plain"].splitlines()[1].startswith("fit: 1,000 of 1,000 tasks, 5,000 rows, 48.8 KiB, ")
    assert displays.drawn < 100
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("displays", [True], indirect=True)
def test_a_notebook_that_is_gone_ends_nothing(displays: Displays) -> None:
    a_run("auto")
    assert displays.shown == []


def test_elsewhere_there_are_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    a_run("auto")
    assert "fit: 1,000 tasks, 5,000 rows" in capsys.readouterr().err


def test_a_run_in_a_real_notebook(job: Document, tmp_path: Path) -> None:
    """The kernel of a notebook runs the job, workers and all; what the reader sees is one display and the result."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = f"import dtap_dask\ndtap_dask.run({job!r}, cluster=dtap_dask.ClusterOptions(workers=1), limit=500)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(notebook, timeout=HANG, resources={"metadata": {"path": str(tmp_path)}})
    client.km = client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    outputs = notebook.cells[0].outputs
    assert [one.output_type for one in outputs] == ["display_data", "execute_result"], outputs
    bars = outputs[0].data["text/html"]
    assert bars.count("<progress") == 2
    assert "Next: look at it, `dtap-dask show " in bars
    assert "train: 614 rows" in outputs[1].data["text/html"]


def test_notes_and_bars_from_several_threads(displays: Displays) -> None:
    """What several threads of a run say at once is drawn complete."""
    import threading

    with NotebookBars() as bars:
        report = RunReporter(BEGUN, bars, Secrets())
        threads = [threading.Thread(target=lambda: [report.note(f"note {i}") for i in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    [shown] = displays.shown
    assert shown["text/plain"].count("note") == 200
