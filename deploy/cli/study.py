"""The command for a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import Cluster, Json, cluster_of, emit, example
from deploy.progress import progress

app = typer.Typer()


@app.command(epilog=example("cropcube run studies/demo.yaml --out demo"))
def run(
    study: Annotated[Path, typer.Argument(help="Study file.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: the study's name.")] = None,
    cluster: Cluster = None,
    as_json: Json = False,
) -> None:
    """Run a whole study: search, cube, labels, training, scores, map."""
    from deploy.study import run_study

    with cluster_of(cluster) as client:
        results = run_study(study, out or Path(study.stem), client=client, step=progress)
    if as_json:
        emit({"folder": results.folder, "scores": results.comparison.rows}, as_json)
        return
    typer.echo(results.comparison.text())
    facts = {
        "map": results.folder / "map",
        "scores": results.folder / "scores",
        "pictures": ", ".join(sorted({str(path.parent) for path in results.pictures})),
        "seconds": f"{results.seconds:.0f}",
    }
    emit({key: value for key, value in facts.items() if results.map or key != "map"}, False)
