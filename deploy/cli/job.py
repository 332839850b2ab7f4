"""Batch jobs: plan once, run by many, look, verify."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cube.errors import CropcubeError
from deploy.cli.common import Json, emit, example, note
from deploy.progress import console, progress

if TYPE_CHECKING:
    from deploy.jobs.job import Job

app = typer.Typer(
    name="job", help="Cubes and maps as batch jobs that survive.", no_args_is_help=True
)

Root = Annotated[str, typer.Argument(help="The run's folder: a path or s3://bucket/prefix.")]


@app.command(epilog=example("cropcube job template > job.yaml"))
def template(
    kind: Annotated[
        Literal["CubeBuild", "CropMap"], typer.Option("--kind", help="What to make.")
    ] = "CubeBuild",
) -> None:
    """Print a commented job file to start from."""
    from deploy.jobs.template import template as text

    typer.echo(text(kind), nl=False)


@app.command(epilog=example("cropcube job schema > job.schema.json"))
def schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    from deploy.jobs.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@app.command(epilog=example("cropcube job plan job.yaml --out runs/flevoland"))
def plan(
    spec: Annotated[Path, typer.Argument(help="Job file.")],
    out: Annotated[str, typer.Option("--out", help="The run's folder or URL.")],
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Delete the run of another spec that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search once, freeze what was found, and prepare the output."""
    from deploy.jobs.plan import plan_job

    with _exits(), progress("plan") as report:
        job = plan_job(spec, out, new_run=new_run, progress=report)
    removed = job.plan.removed
    note([f"{gone.id}: {gone.reason}, {gone.detail}" for gone in removed], "in plan.json")
    facts = {
        "tasks": len(job.tasks),
        "granules": len(job.plan.grids),
        "scenes": sum(len(grid.scenes) for grid in job.plan.grids),
        "spec": job.lock.spec_hash,
        "folder": str(job.folder),
    }
    emit(facts, as_json)


@app.command(epilog=example("cropcube job run runs/flevoland --shard 3/8"))
def run(
    root: Root,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Id of a task; repeat for more.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Part I, from 0, of N.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="As `cropcube cluster up`; default the spec's.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Event lines on stdout even on a terminal.")
    ] = False,
) -> None:
    """Do the tasks that are not done; one JSON line per event on stdout, unless it is a terminal.

    Exit codes: 0 all done, 2 usage or cancelled, 65 bad data, 69 service down, 73 output not
    writable, 75 some failed and a rerun may mend it, 77 access refused, 78 budget spent, 124 time
    limit, 130 SIGINT, 143 SIGTERM.
    """
    from deploy.jobs.job import open_job
    from deploy.jobs.run import run_job
    from deploy.jobs.watch import Stop, stopped_by_signals

    stop = Stop()
    lines = as_json or not sys.stdout.isatty()
    with _exits():
        part, job = _shard(shard), open_job(root)
        with (
            _cluster(job, cluster) as client,
            nullcontext() if lines else progress("run") as report,
            stopped_by_signals(stop),
        ):

            def listen(event: dict[str, Any]) -> None:
                if report is None:
                    typer.echo(json.dumps(event, default=str))
                else:
                    report(event["ok"], event["all"], f"{event['event']} {event.get('task', '')}")
                    if event["level"] == "error" and "task" in event:
                        console.print(f"{event['task']}: {event['error']}", markup=False)

            outcome = run_job(
                root, tasks=task or (), shard=part, client=client, listener=listen, stop=stop
            )
    failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
    console.print(
        f"cropcube: {outcome.ended}: {outcome.done} of {outcome.total} tasks done{failed}",
        markup=False,
    )
    if outcome.busy:
        # A thread that cannot be stopped would keep the process; nothing is ever half-written.
        sys.stdout.flush()
        os._exit(outcome.code)
    raise typer.Exit(outcome.code)


@app.command(epilog=example("cropcube job status runs/flevoland"))
def status(
    root: Root,
    tasks: Annotated[bool, typer.Option("--tasks", help="List every task.")] = False,
    as_json: Json = False,
) -> None:
    """Say which tasks are done, running, failed or waiting."""
    from dataclasses import asdict

    from deploy.jobs.job import open_job
    from deploy.jobs.status import status as status_of

    with _exits():
        found = status_of(open_job(root))
    facts: dict[str, Any] = {"job": found.job, "cancelled": found.cancelled}
    facts |= {state: count for state, count in found.counts.items()}
    if as_json:
        emit(facts | {"tasks": [asdict(one) for one in found.tasks]}, as_json)
        return
    emit({name: value for name, value in facts.items() if value is not None}, as_json)
    for one in found.tasks:
        if tasks or one.state == "failed":
            told = f"  {one.failure}: {one.error}" if one.failure else ""
            typer.echo(f"{one.task}  {one.state}  attempts {one.attempts}{told}")


@app.command(epilog=example("cropcube job verify runs/flevoland --repair"))
def verify(
    root: Root,
    repair: Annotated[
        bool, typer.Option("--repair", help="Let the next run make again what is damaged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hash all output again; exit code 65 if something is missing or changed.

    With --repair 75 instead: `cropcube job run` then makes the damaged tiles and no others.
    """
    from deploy.jobs.job import open_job
    from deploy.jobs.status import repair as give_back
    from deploy.jobs.status import verify as problems_of

    look = give_back if repair else problems_of
    with _exits():
        problems = look(open_job(root))
    if as_json:
        emit({"problems": problems}, as_json)
    else:
        typer.echo("\n".join(problems) or "all is as it was written")
    if problems:
        after = "" if repair else f"cropcube job verify {root} --repair; "
        note = f"cropcube: mend it with: {after}cropcube job run {root}"
        console.print(note, markup=False, soft_wrap=True)
    raise typer.Exit((75 if repair else 65) if problems else 0)


@app.command(epilog=example("cropcube job cancel runs/flevoland"))
def cancel(
    root: Root,
    undo: Annotated[bool, typer.Option("--undo", help="Let the job run again.")] = False,
) -> None:
    """Ask every runner to begin nothing more; tasks under way are finished."""
    from deploy.jobs.job import open_job
    from deploy.jobs.status import cancel as cancel_job

    with _exits():
        cancel_job(open_job(root), undo=undo)


@app.command(epilog=example("cropcube job report runs/flevoland"))
def report(root: Root, as_json: Json = False) -> None:
    """Show what the job took so far, beside what was estimated; writes report.json."""
    from deploy.jobs.cost import beside, expected
    from deploy.jobs.job import open_job
    from deploy.jobs.report import write_report

    with _exits():
        job = open_job(root)
        made, before = write_report(job), expected(job)
    if as_json:
        typer.echo(made.model_dump_json())
        return
    typer.echo(made.text)
    if before is not None:
        typer.echo(f"\n{beside(made, before).to_string(float_format='{:,.4g}'.format)}")


@app.command(epilog=example("cropcube job estimate runs/flevoland --prices prices.yaml"))
def estimate(
    root: Root,
    concurrency: Annotated[
        int, typer.Option("--concurrency", help="Tasks at a time, all runners together.", min=1)
    ] = 1,
    prices: Annotated[
        Path | None, typer.Option("--prices", help="Price table (YAML): currency, core_hour, …")
    ] = None,
    calibrate: Annotated[
        int, typer.Option("--calibrate", help="Tiles to build and measure first.", min=0)
    ] = 0,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Fail if the price may exceed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what the job will read, write, take and cost; kept for the report."""
    from dataclasses import asdict

    from deploy.jobs.cost import estimate_job
    from deploy.jobs.job import open_job
    from deploy.jobs.prices import check_budget, read_prices

    with _exits():
        table = None if prices is None else read_prices(prices)
        made = estimate_job(
            open_job(root), concurrency=concurrency, prices=table, measure=calibrate
        )
        if as_json:
            emit(asdict(made), as_json)
        else:
            typer.echo(made.text)
        if budget is not None:
            check_budget(made.price, budget, made.currency)


@contextmanager
def _exits() -> Iterator[None]:
    """End the command with the exit code of its error, for whatever started it to act on."""
    from deploy.jobs.failures import code_of

    try:
        yield
    except (CropcubeError, OSError) as error:
        console.print(f"cropcube: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(code_of(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


@contextmanager
def _cluster(job: Job, asked: str | None) -> Iterator[Any]:
    """Give the client of the cluster that the command or the spec asks for, or None."""
    wish = job.spec.run.cluster
    if asked is None and wish is None:
        yield None
        return
    from deploy.cluster import open_cluster

    backend = asked or (wish.backend if wish else "local")
    workers, memory = (wish.workers, wish.memory) if wish else (None, None)
    with open_cluster(backend, workers=workers, worker_memory=memory) as cluster:
        console.print(f"cluster: {cluster.name} {cluster.dashboard_link}", markup=False)
        yield cluster.client


def _shard(text: str | None) -> tuple[int, int] | None:
    from cube.errors import JobError

    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(count) > 0):
        raise JobError(f"--shard {text}: write the part, from 0, and their number, 3/8")
    return int(index), int(count)
