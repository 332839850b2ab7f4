"""The notebooks as they are kept: scripts and executed copies agree, and outputs are fit to keep.

That they run is what ``python notebooks/run.py`` finds out; this only reads files.
"""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
#: Where files of one machine lie.
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|var|opt|Users|mnt)/")


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request):
    return request.param


@pytest.fixture
def executed(script):
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def test_there_are_notebooks_and_none_without_its_script():
    assert SCRIPTS
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in SCRIPTS}


def test_the_executed_notebook_is_the_script(script, executed):
    written = jupytext.read(script)
    assert [(c.cell_type, c.source) for c in executed.cells] == [
        (c.cell_type, c.source) for c in written.cells
    ]


def test_every_cell_ran_once_in_order_without_a_warning(executed):
    nbformat.validate(executed)
    numbers = [cell.execution_count for cell in code(executed)]
    assert numbers == list(range(1, len(numbers) + 1))
    for output in outputs(executed):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


def test_parameters_come_first_and_the_cluster_is_closed_last(executed):
    tagged = [n for n, c in enumerate(code(executed)) if "parameters" in c.metadata.get("tags", [])]
    assert tagged == [0]
    assert code(executed)[-1].source.endswith("cluster.close()")


def test_numbers_are_asserted(executed):
    asserts = sum(len(re.findall(r"^\s*assert ", c.source, re.M)) for c in code(executed))
    assert asserts >= 4


def test_outputs_are_small_and_name_no_machine(script, executed):
    assert script.with_suffix(".ipynb").stat().st_size < 1_000_000
    for output in outputs(executed):
        texts = [output.get("text", ""), *map(str, output.get("data", {}).values())]
        pictures = output.get("data", {}).get("image/png", "")
        for text in texts:
            if text != pictures:
                assert not MACHINE.search(text), text[:500]


def test_every_picture_has_an_alternative_text_and_a_caption(executed):
    shown = 0
    for cell, after in zip(executed.cells, executed.cells[1:], strict=False):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                shown += 1
                assert len(output.metadata["image/png"]["alt"]) > 20
                assert after.cell_type == "markdown"
                assert after.source.startswith(f"*Figure {shown}.")
    assert shown >= 3
