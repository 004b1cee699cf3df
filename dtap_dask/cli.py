"""The commands: parse arguments, call the room that does it, print, exit code. Nothing else."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from dtap_dask import __version__
from dtap_dask.errors import DtapError, JobError

F = TypeVar("F", bound=Callable[..., Any])
LATER = ("validate", "export", "clean")


class _Commands(click.Group):
    """Knows the commands that are to come, and turns our errors into one paragraph and an exit code."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LATER:
            return click.Command(name, callback=lambda: _not_available(name), context_settings=_ANYTHING)
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DtapError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # whoever read the output has seen enough: click knows what to do
        except OSError as error:  # storage or network failed for the moment
            if ctx.params.get("debug"):
                traceback.print_exc()
            place = f" ({error.filename})" if error.filename else ""
            click.echo(f"Error: {error.strerror or error}{place}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Stopped. What is written stays: go on with --resume (in Python resume=True).", err=True)
            ctx.exit(4)


_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def _not_available(name: str) -> NoReturn:
    raise JobError(f"`{name}` is not available yet. `dtap-dask --help` lists the commands that are.")


def _set_option(function: F) -> F:
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the job, e.g. output.path=out."
    )(function)


def _json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def _scheduler_options(function: F) -> F:
    for option in (
        click.option("--tls-key", metavar="FILE", help="Its key (distributed.comm.tls.client.key)."),
        click.option("--tls-cert", metavar="FILE", help="Your certificate (distributed.comm.tls.client.cert)."),
        click.option("--tls-ca-file", metavar="FILE", help="For tls://, unless Dask's distributed.comm.tls.ca-file."),
        click.option("--insecure", is_flag=True, help="Take a scheduler on the network that is not tls://."),
        click.option("--scheduler-file", help="The file that `dask scheduler --scheduler-file` wrote."),
        click.option("--scheduler", metavar="ADDR", help="A Dask scheduler that runs already, e.g. tcp://host:8786."),
    ):
        function = option(function)
    return function


def _cluster_options(function: F) -> F:
    cluster = click.option("--cluster", metavar="FILE", help="YAML that says which cluster to start (see the README).")
    function = _scheduler_options(cluster(function))
    for option in (
        click.option("--memory", metavar="SIZE", help="Memory of each local worker, e.g. 4GiB."),
        click.option("--threads", type=click.IntRange(1), help="Threads of each local worker (1)."),
        click.option("--workers", type=click.IntRange(1), help="Local worker processes (one a core)."),
    ):
        function = option(function)
    return function


def _run_options(function: F) -> F:
    for option in (
        click.option("--resume", is_flag=True, help="Go on with a run that was interrupted."),
        click.option("--overwrite", is_flag=True, help="Replace what output.path holds, once the new dataset stands."),
        click.option(
            "--limit", type=click.IntRange(1), metavar="ROWS", help="Read only this many source rows, for a try."
        ),
    ):
        function = option(function)
    return function


@click.group(cls=_Commands, name="tfrecords", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dtap-dask")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def tfrecords(debug: bool) -> None:
    """From a Parquet lake to a TensorFlow training loop, in one Dask job."""


@tfrecords.command()
@click.argument("job")
@_set_option
@click.option("--limit", type=click.IntRange(1), help="Plan for this many source rows only.")
@click.option("--probe", is_flag=True, help="Measure on a few row groups (about 4 s), to forecast time and sizes.")
@click.option("--workers", type=click.IntRange(1), help="Forecast for this many worker threads (one a core).")
@click.option("--memory", metavar="SIZE", help="Memory of each of them, e.g. 4GiB (its share of this machine's).")
@_json_option
def plan(job: str, as_json: bool, **options: Any) -> None:
    """What JOB will read, fit and write; reads nothing but listings and footers, unless it is to --probe."""
    from dtap_dask.job.planning.describe import print_plan

    print_plan(job, as_json=as_json, **options)


@tfrecords.command()
@click.argument("job")
@_set_option
@click.option("-n", "rows", type=click.IntRange(1), default=5, show_default=True, help="Rows to show.")
@_json_option
def preview(job: str, overrides: tuple[str, ...], rows: int, as_json: bool) -> None:
    """Transformed rows of a small sample of JOB's source; nothing is written."""
    from dtap_dask.job.preview import preview as make_preview
    from dtap_dask.job.table import print_rows

    print_rows(make_preview(job, rows, overrides=overrides), as_json=as_json)


@tfrecords.command()
@click.argument("job")
@_set_option
@_cluster_options
@_run_options
@click.option("--probe", is_flag=True, help="Measure on a few row groups first, and forecast the time.")
@_json_option
def run(job: str, as_json: bool, **options: Any) -> None:
    """Plan, fit, write and commit JOB, on a Dask cluster of this machine or on one that runs already."""
    from dtap_dask.job.cluster.client import ClusterOptions
    from dtap_dask.job.running.run import run as run_job

    where = {name: options.pop(name) for name in ClusterOptions.__dataclass_fields__}
    run_job(job, cluster=ClusterOptions(**where), progress="json" if as_json else "auto", **options)


@tfrecords.command()
@click.argument("job")
@_set_option
@_scheduler_options
@_run_options
@_json_option
def submit(job: str, as_json: bool, **options: Any) -> None:
    """Give JOB to a cluster that runs already, print its id and leave: it goes on without you."""
    from dtap_dask.job.cluster.client import ClusterOptions
    from dtap_dask.job.running.submit import submit as submit_job

    where = {name: options.pop(name) for name in ClusterOptions.__dataclass_fields__.keys() & options.keys()}
    submitted = submit_job(job, cluster=ClusterOptions(**where), **options)
    click.echo(json.dumps({"id": submitted.id, "note": submitted.note}) if as_json else submitted.id)
    if not as_json:
        click.echo(f"{submitted.note} How it goes: `dtap-dask wait {submitted.id}`.", err=True)


@tfrecords.command()
@_scheduler_options
@_json_option
def jobs(as_json: bool, **where: Any) -> None:
    """The runs that the scheduler knows."""
    from dtap_dask.job.telling.ask import print_jobs

    print_jobs(where, as_json=as_json)


@tfrecords.command()
@click.argument("target", metavar="ID|PATH")
@_scheduler_options
@_json_option
def status(target: str, as_json: bool, **where: Any) -> None:
    """How a run goes, by its id or by the path of its output, which needs no scheduler."""
    from dtap_dask.job.telling.ask import print_status

    print_status(target, where, as_json=as_json)


@tfrecords.command()
@click.argument("target", metavar="ID|PATH")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@_scheduler_options
@_json_option
def logs(target: str, follow: bool, as_json: bool, **where: Any) -> None:
    """What a run has said, by its id or by the path of its output."""
    from dtap_dask.job.telling.ask import print_logs

    with _leaving(target):
        print_logs(target, where, follow=follow, as_json=as_json)


@tfrecords.command()
@click.argument("target", metavar="ID|PATH")
@_scheduler_options
@_json_option
def wait(target: str, as_json: bool, **where: Any) -> None:
    """Watch a run until it has ended, and return its exit code; Ctrl-C leaves it running."""
    from dtap_dask.job.telling.ask import wait_for

    with _leaving(target):
        wait_for(target, where, as_json=as_json)


@contextmanager
def _leaving(target: str) -> Iterator[None]:
    """Ctrl-C stops the watching, not the run."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"You have left; the run goes on. Come back with `dtap-dask wait {target}`.", err=True)
        click.get_current_context().exit(130)


@tfrecords.command()
@click.argument("run", metavar="ID")
@_scheduler_options
@_json_option
def cancel(run: str, as_json: bool, **where: Any) -> None:
    """Stop a run: what it is doing may end, nothing more is begun, and `--resume` goes on with it."""
    from dtap_dask.job.telling.ask import cancel_run

    cancel_run(run, where, as_json=as_json)


@tfrecords.command()
@click.argument("path")
@click.option("--split", help="The part to show (all parts).")
@click.option("-n", "rows", type=click.IntRange(1), default=5, show_default=True, help="Rows to show of each part.")
@_json_option
def show(path: str, split: str | None, rows: int, as_json: bool) -> None:
    """What a finished dataset is, and some of its rows, decoded."""
    from dtap_dask.job.table import print_dataset

    print_dataset(path, split, rows, as_json=as_json)


@tfrecords.command()
@click.argument("path")
@_json_option
def verify(path: str, as_json: bool) -> None:
    """Read every shard again: counts, checksums and schema against the manifest."""
    from dtap_dask.job.verify import verify as verify_dataset

    click.echo(verify_dataset(path, as_json=as_json))


@tfrecords.command()
@click.argument("lake")
def init(lake: str) -> None:
    """Print a starter job file for the Parquet files of LAKE (a folder, file, glob or URL)."""
    from dtap_dask.job.init import starter

    click.echo(starter(lake), nl=False)


@tfrecords.command()
@click.argument("folder", metavar="DIR")
@click.option("--rows", type=click.IntRange(1), default=100_000, show_default=True, help="Rows in all.")
def sample(folder: str, rows: int) -> None:
    """Write a small realistic lake of taxi trips to DIR/trips, to try things on."""
    from dtap_dask.job import taps
    from dtap_dask.lake.sample import write_sample
    from dtap_dask.storage import open_store

    written = write_sample(open_store(folder, taps.settings()), rows)
    click.echo(
        f"{folder}/{written.path}: {written.rows:,} rows in {written.row_groups:,} row groups of {written.files:,} "
        f"files, {written.bytes / 2**20:.1f} MiB"
    )


def main() -> None:
    """The console script `dtap-dask`."""
    if sys.platform != "win32":
        import signal

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interruption like Ctrl-C
    tfrecords(prog_name="dtap-dask")
