"""The command `cropcube`: the same steps as from Python, from files."""

from __future__ import annotations

import logging
import sys

import typer

from cube.errors import CropcubeError
from deploy.cli import cluster, compare, data, honest, job, learning, season, study
from deploy.progress import console

app = typer.Typer(
    name="cropcube",
    help="From public Sentinel-2 imagery to crop maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (study, data, learning, honest, season, compare):
    app.registered_commands += part.app.registered_commands
app.add_typer(cluster.app)
app.add_typer(job.app)


def main() -> None:
    """Run the command; mistakes of the user end with one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    try:
        app()
    except CropcubeError as error:
        console.print(f"cropcube: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("cropcube: interrupted; run the same command again to continue")
        sys.exit(130)


if __name__ == "__main__":
    main()
