"""The commands that compare models, on a data set of a few series."""

import json

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from model.datasets.catalogue import DATASETS, DataSet
from tests.model.test_sampleset import seasons

RUN = CliRunner()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Add a small data set to those with names."""
    entry = DataSet(lambda data, work: seasons(), "groups", "this test", needs_data=False)
    monkeypatch.setitem(DATASETS, "few", entry)


def test_benchmark_prints_a_table_and_keeps_it(tmp_path) -> None:
    options = ["--models", "random-forest,xgboost", "--seeds", "1", "--folds", "2"]
    command = ["benchmark", "few", "--out", str(tmp_path), "--no-random", *options]
    told = RUN.invoke(app, command)
    assert told.exit_code == 0, told.output
    assert told.stdout == (tmp_path / "table.md").read_text() + "\n"
    as_json = RUN.invoke(app, [*command, "--json"])
    saved = json.loads((tmp_path / "table.json").read_text())
    assert json.loads(as_json.stdout) == saved
    assert [row["model"] for row in saved["rows"]] == ["random-forest", "xgboost"]


def test_ablate_prints_a_table_beside_the_published_one(tmp_path) -> None:
    options = ["--what", "composites", "--model", "random-forest", "--folds", "2"]
    told = RUN.invoke(app, ["ablate", "few", "--out", str(tmp_path), *options])
    assert told.exit_code == 0, told.output
    assert "| monthly medians | random-forest |" in told.stdout
    assert "12 monthly composites | 80.89" in told.stdout


@pytest.mark.parametrize("name", ["benchmark", "ablate"])
def test_help_has_an_example(name) -> None:
    told = RUN.invoke(app, [name, "--help"])
    assert told.exit_code == 0
    assert f"cropcube {name} us-cdl-" in " ".join(told.stdout.split())
