"""Execute the notebooks in order and write each with its outputs: ``python notebooks/run.py``.

Names of scripts may follow (``03_training_tiles.py``); default all. The first error ends the run
with its traceback, and the notebook that failed is not written. Notebook 1 finds a Dask Gateway on
this machine, which runs as long as it does.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from tests.deploy.gateway_server import gateway_server

HERE = Path(__file__).parent
#: Seconds that one cell may take.
LIMIT = 600
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@contextmanager
def local_gateway() -> Iterator[dict[str, str]]:
    """Run a Dask Gateway on free ports of loopback; gives the variables by which Dask finds it."""
    with tempfile.TemporaryDirectory() as root, gateway_server(Path(root)) as server:
        # Dask reads values as Python where it can: a password of digits would become a number.
        yield {
            "DASK_GATEWAY__ADDRESS": server.address,
            "DASK_GATEWAY__AUTH__TYPE": "basic",
            "DASK_GATEWAY__AUTH__KWARGS__USERNAME": "reader",
            "DASK_GATEWAY__AUTH__KWARGS__PASSWORD": repr(server.password),
        }


def execute(script: Path, environment: Mapping[str, str]) -> Path:
    """Run one script in its folder, with variables of its own, and write the notebook beside it.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        From the first cell that fails.
    """
    notebook = jupytext.read(script)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    client = NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name=KERNEL["name"],
        record_timing=False,
        coalesce_streams=True,
        # What libraries in C write goes to the terminal: it tells of addresses, not of the study.
        extra_arguments=["--IPKernelApp.capture_fd_output=False", "--log-level=ERROR"],
        resources={"metadata": {"path": str(script.parent)}},
    )
    client.execute(env=os.environ | environment)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # drawn at random otherwise: a difference in every run
    # What the kernel says about itself names the machine's Python; nobody reads it.
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    target = script.with_suffix(".ipynb")
    nbformat.write(notebook, target)
    return target


def main(names: list[str]) -> None:
    """Execute the named scripts, or all of them in order."""
    scripts = [HERE / name for name in names] or sorted(HERE.glob("[0-9][0-9]_*.py"))
    for script in scripts:
        started = time.monotonic()
        if script.stem == "01_cluster_and_first_cube":
            with local_gateway() as environment:
                target = execute(script, environment)
        else:
            target = execute(script, {})
        print(f"{target.name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
