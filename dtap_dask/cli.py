"""The commands: parse arguments, call the code that does it, print, exit code. Nothing else."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from dtap_dask import __version__
from dtap_dask.errors import STOPPED, DtapError, JobError
from dtap_dask.job.console import open_standard_streams, reader_gone, say
from dtap_dask.job.ending import end_process
from dtap_dask.job.interrupts import handle_signals
from dtap_dask.words import count, visible

F = TypeVar("F", bound=Callable[..., Any])
LATER = ("validate", "clean")
PATH = click.Path()  # or a URL; what a shell completes as a path


class _Commands(click.Group):
    """Knows the commands that are planned, and turns our errors into one paragraph and an exit code."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LATER:
            return click.Command(name, callback=lambda: _not_available(name), context_settings=_ANYTHING)
        return super().get_command(ctx, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["as_json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DtapError as error:
            _fail(ctx, str(error), error.exit_code, error)
        except OSError as error:  # storage or network failed for the moment
            if isinstance(error, BrokenPipeError) and reader_gone(sys.stdout):
                ctx.exit(0)  # the reader of the output has closed it
            place = f" ({error.filename})" if error.filename else ""
            _fail(ctx, f"{error.strerror or error}{place}", 1, error)
        except click.UsageError as error:
            if not ctx.meta["as_json"]:
                raise
            _fail(ctx, error.format_message(), error.exit_code, error)
        except KeyboardInterrupt:
            say(STOPPED)
            ctx.exit(4)


def _fail(ctx: click.Context, text: str, code: int, error: Exception) -> NoReturn:
    """Print an error, for a person or with --json for programs, and exit."""
    if ctx.params.get("debug"):
        traceback.print_exc()
    if ctx.meta["as_json"]:
        found = error.problems if isinstance(error, JobError) else ()
        problems = [{"place": problem.place, "message": problem.message} for problem in found]
        say(json.dumps({"error": text, "exit_code": code, "problems": problems}))
    else:
        say(f"Error: {visible(text)}")
    ctx.exit(code)


_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def _not_available(name: str) -> NoReturn:
    raise JobError(f"`{name}` is not available yet. `dtap-dask --help` lists the commands that are.")


def _set_option(function: F) -> F:
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the job, e.g. output.path=out."
    )(function)


def _allow(ctx: click.Context, option: click.Parameter, modules: tuple[str, ...]) -> None:
    if modules:
        from dtap_dask.features.steps.transformers import allow_estimators

        allow_estimators(*modules)


def _estimators_option(function: F) -> F:
    return click.option(
        "--allow-estimators",
        multiple=True,
        metavar="MODULE",
        expose_value=False,
        callback=_allow,
        help="Let the step `estimator` import from this top-level module, too, which runs its code.",
    )(function)


def _json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def _file_option(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, type=PATH, metavar="FILE", help=text)


def _scheduler_options(function: F) -> F:
    for option in (
        _file_option("--tls-key", "Its key (distributed.comm.tls.client.key)."),
        click.option(
            "--tls-cert", type=PATH, metavar="FILE", help="Your certificate (distributed.comm.tls.client.cert)."
        ),
        click.option(
            "--tls-ca-file", type=PATH, metavar="FILE", help="For tls://, unless Dask's distributed.comm.tls.ca-file."
        ),
        click.option("--insecure", is_flag=True, help="Accept a scheduler on the network that is not tls://."),
        click.option(
            "--scheduler-file", type=PATH, metavar="FILE", help="The file that `dask scheduler --scheduler-file` wrote."
        ),
        click.option("--scheduler", metavar="ADDR", help="A running Dask scheduler, e.g. tcp://host:8786."),
    ):
        function = option(function)
    return function


def _cluster_options(function: F) -> F:
    cluster = click.option(
        "--cluster",
        type=PATH,
        metavar="FILE",
        help="A YAML file that describes the cluster to start (`dtap-dask docs cluster`).",
    )
    function = _scheduler_options(cluster(function))
    for option in (
        click.option("--memory", metavar="SIZE", help="Memory of each local worker, e.g. 4GiB."),
        click.option("--threads", type=click.IntRange(1), help="Threads of each local worker (1)."),
        click.option("--workers", type=click.IntRange(1), help="Local worker processes (one per core)."),
    ):
        function = option(function)
    return function


def _run_options(function: F) -> F:
    for option in (
        click.option("--resume", is_flag=True, help="Continue an interrupted run."),
        click.option(
            "--overwrite", is_flag=True, help="Replace what output.path holds, once the new dataset is complete."
        ),
        click.option(
            "--limit", type=click.IntRange(1), metavar="ROWS", help="Read about this many source rows, to try a job."
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
@click.argument("job", type=PATH)
@_set_option
@_estimators_option
@click.option("--limit", type=click.IntRange(1), help="Plan for about this many source rows only.")
@click.option("--probe", is_flag=True, help="Measure on a few row groups (about 4 s), to forecast time and sizes.")
@click.option("--workers", type=click.IntRange(1), help="Forecast for this many worker threads (one per core).")
@click.option("--memory", metavar="SIZE", help="Memory of each, e.g. 4GiB (its share of this machine's).")
@_json_option
def plan(job: str, as_json: bool, **options: Any) -> None:
    """Show what JOB will read, fit and write; reads only listings and footers, unless --probe is given."""
    from dtap_dask.job.planning.describe import print_plan

    print_plan(job, as_json=as_json, **options)


@tfrecords.command()
@click.argument("job", type=PATH)
@_set_option
@_estimators_option
@click.option("-n", "rows", type=click.IntRange(1), default=5, show_default=True, help="Rows to show.")
@_json_option
def preview(job: str, overrides: tuple[str, ...], rows: int, as_json: bool) -> None:
    """Show transformed rows of a small sample of JOB's source; nothing is written."""
    from dtap_dask.job.preview import preview as make_preview
    from dtap_dask.job.table import print_rows

    print_rows(make_preview(job, rows, overrides=overrides), as_json=as_json)


@tfrecords.command()
@click.argument("job", type=PATH)
@_set_option
@_estimators_option
@_cluster_options
@_run_options
@click.option("--probe", is_flag=True, help="Measure on a few row groups first, and forecast the time.")
@_json_option
def run(job: str, as_json: bool, **options: Any) -> None:
    """Plan, fit, write and commit JOB, on a Dask cluster of this machine or on a running one."""
    from dtap_dask.job.cluster.client import ClusterOptions
    from dtap_dask.job.running.run import run as run_job

    where = {name: options.pop(name) for name in ClusterOptions.__dataclass_fields__}
    run_job(job, cluster=ClusterOptions(**where), progress="json" if as_json else "auto", **options)


@tfrecords.command()
@click.argument("job", type=PATH)
@_set_option
@_estimators_option
@_scheduler_options
@_run_options
@_json_option
def submit(job: str, as_json: bool, **options: Any) -> None:
    """Give JOB to a running cluster and print its id; the run needs no client."""
    from dtap_dask.job.cluster.client import ClusterOptions
    from dtap_dask.job.running.submit import submit as submit_job
    from dtap_dask.job.status.hints import run_command

    where = {name: options.pop(name) for name in ClusterOptions.__dataclass_fields__.keys() & options.keys()}
    submitted = submit_job(job, cluster=ClusterOptions(**where), **options)
    click.echo(json.dumps({"id": submitted.id, "note": submitted.note}) if as_json else submitted.id)
    if not as_json:
        say(f"{submitted.note} Its progress: `{run_command('wait', submitted.id, where)}`.")


@tfrecords.command()
@_scheduler_options
@_json_option
def jobs(as_json: bool, **where: Any) -> None:
    """List the runs that the scheduler knows."""
    from dtap_dask.job.running.ask import print_jobs

    print_jobs(where, as_json=as_json)


@tfrecords.command()
@click.argument("target", metavar="ID|PATH", type=PATH)
@_scheduler_options
@_json_option
def status(target: str, as_json: bool, **where: Any) -> None:
    """Show the state of a run, by its id or by the path of its output, which needs no scheduler."""
    from dtap_dask.job.running.ask import print_status

    print_status(target, where, as_json=as_json)


@tfrecords.command()
@click.argument("target", metavar="ID|PATH", type=PATH)
@click.option("-f", "--follow", is_flag=True, help="Follow the run until it has ended.")
@_scheduler_options
@_json_option
def logs(target: str, follow: bool, as_json: bool, **where: Any) -> None:
    """Show the messages of a run, by its id or by the path of its output."""
    from dtap_dask.job.running.ask import print_logs

    with _leaving(target, where):
        print_logs(target, where, follow=follow, as_json=as_json)


@tfrecords.command()
@click.argument("target", metavar="ID|PATH", type=PATH)
@_scheduler_options
@_json_option
def wait(target: str, as_json: bool, **where: Any) -> None:
    """Show the progress of a run until it has ended, and return its exit code; Ctrl-C leaves it running."""
    from dtap_dask.job.running.ask import wait_for

    with _leaving(target, where):
        wait_for(target, where, as_json=as_json)


@contextmanager
def _leaving(target: str, where: Mapping[str, Any]) -> Iterator[None]:
    """Ctrl-C ends the command, not the run."""
    try:
        yield
    except KeyboardInterrupt:
        from dtap_dask.job.status.hints import run_command

        say(f"The run continues without you. Come back with `{run_command('wait', target, where)}`.")
        click.get_current_context().exit(130)


@tfrecords.command()
@click.argument("run", metavar="ID")
@_scheduler_options
@_json_option
def cancel(run: str, as_json: bool, **where: Any) -> None:
    """Stop a run: its present tasks finish, no others start, and `--resume` can continue it."""
    from dtap_dask.job.running.ask import cancel_run

    cancel_run(run, where, as_json=as_json)


@tfrecords.command()
@click.argument("path", type=PATH)
@click.option("--split", help="The part to show (all parts).")
@click.option("-n", "rows", type=click.IntRange(1), default=5, show_default=True, help="Rows to show of each part.")
@click.option("--fitted", is_flag=True, help="Show what the steps have learnt instead of rows.")
@_json_option
def show(path: str, split: str | None, rows: int, fitted: bool, as_json: bool) -> None:
    """Describe a finished dataset and show some of its rows, decoded."""
    from dtap_dask.job.dataset import print_dataset, print_fitted

    if fitted:
        print_fitted(path, as_json=as_json)
    else:
        print_dataset(path, split, rows, as_json=as_json)


@tfrecords.command()
@click.argument("path", type=PATH)
@_json_option
def verify(path: str, as_json: bool) -> None:
    """Read every shard again and compare counts, checksums and schema with the manifest."""
    from dtap_dask.job.dataset import verification

    click.echo(verification(path, as_json=as_json))


@tfrecords.command()
@click.argument("path", type=PATH)
@click.argument("folder", type=PATH)
@click.option("--model", type=PATH, metavar="FILE", help="A trained Keras model (.keras) of the features.")
def export(path: str, folder: str, model: str | None) -> None:
    """Write the features of a finished dataset as a SavedModel that takes raw columns, and check it."""
    from dtap_dask.job import taps
    from dtap_dask.job.samples import source_rows
    from dtap_dask.train.serving.command import print_export

    click.echo(print_export(path, folder, model, taps.settings(), source_rows))


@tfrecords.command()
@click.argument("lake", type=PATH)
@click.option("--label", metavar="COLUMN", help="The column to predict.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write the job file there; an existing one is kept.")
def init(lake: str, label: str | None, output: str | None) -> None:
    """Print a starter job file for the Parquet files of LAKE (a folder, file, glob or URL), or write it to FILE."""
    from dtap_dask.job.init import write_starter

    text = write_starter(lake, label, output)
    if text is None:
        say(f"{output} is written. See what it would do: `dtap-dask plan {output}`.")
    else:
        click.echo(text, nl=False)


@tfrecords.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--rows", type=click.IntRange(1), default=100_000, show_default=True, help="Rows in total.")
def sample(folder: str, rows: int) -> None:
    """Write a small realistic lake of taxi trips to DIR/trips, to try jobs on."""
    from dtap_dask.job import taps
    from dtap_dask.lake.sample.sample_lake import write_sample
    from dtap_dask.storage import open_store

    written = write_sample(open_store(folder, taps.settings()), rows)
    groups, files = count(written.row_groups, "row group"), count(written.files, "file")
    size = f"{written.bytes / 2**20:.1f} MiB"
    click.echo(visible(f"{folder}/{written.path}: {count(written.rows, 'row')} in {groups} of {files}, {size}"))


@tfrecords.command()
@click.argument("topic", required=False)
def docs(topic: str | None) -> None:
    """Show a page of the documentation; without TOPIC, list the pages."""
    from dtap_dask.docs.pages import print_docs

    print_docs(topic)


def main() -> NoReturn:
    """The console script `dtap-dask`."""
    open_standard_streams()
    handle_signals()
    code, lost = 0, None
    try:
        tfrecords(prog_name="dtap-dask")
    except SystemExit as ended:
        code = int(ended.code or 0)  # click gives numbers
    except OSError as error:  # of what click prints itself, such as help
        lost = error
    except Exception:  # a mistake of ours
        code = 1
        traceback.print_exc()
    end_process(code, lost)
