"""Job files: one language, no unknown key, a schema that is current."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from cube.errors import JobError
from deploy.jobs.spec import CropMap, CubeBuild, json_schema, parse_spec, read_spec, spec_hash
from deploy.jobs.template import template

SCHEMA = Path(__file__).parents[2] / "deploy" / "jobs" / "job.schema.json"


def read(tmp_path, text):
    file = tmp_path / "job.yaml"
    file.write_text(text)
    return read_spec(file)


@pytest.mark.parametrize(("kind", "model"), [("CubeBuild", CubeBuild), ("CropMap", CropMap)])
def test_the_template_is_a_job_with_the_defaults(tmp_path, kind, model):
    spec = read(tmp_path, template(kind))
    assert isinstance(spec, model)
    least = spec.model_dump(mode="json", include=model.model_fields.keys() - {"run"})
    assert parse_spec(least).run == spec.run
    # What is commented out shows the default, or an example of what has none.
    uncommented = "\n".join(
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") and ": " in line else line
        for line in template(kind).splitlines()
        if not line.startswith("# ") or line[2:].split(":")[0].isidentifier()
    )
    fields = yaml.safe_load(uncommented)
    full = parse_spec(fields)
    assert set(fields) == set(model.model_fields)
    assert set(fields["run"]) == set(type(full.run).model_fields)


def test_the_schema_in_the_repository_is_current_and_says_the_same(tmp_path):
    assert json.loads(SCHEMA.read_text()) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    good = yaml.safe_load(template("CubeBuild"))
    good["recipe"] |= {"start": "2024-01", "end": "2024-12"}
    assert validator.is_valid(good)
    assert not validator.is_valid(good | {"colour": "red"})
    assert not validator.is_valid(good | {"kind": "Cube"})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("provider: earth-search", "provder: earth-search", "did you mean 'provider'"),
        ("kind: CubeBuild", "kind: CubeBuilt", "'CubeBuild' or 'CropMap'"),
        ("apiVersion: cropcube/v1", "apiVersion: cropcube/v2", "cropcube/v1"),
        ("lease_s: 120", "lease_s: 0", "run.lease_s"),
        ("name: my-cube", "name: ../cube", "name"),
        ("bands: [blue", "bands: [bleu", "did you mean 'blue'"),
        ("transient: 4", "transient: many", "run.retries.transient"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, old, new, says):
    text = template("CubeBuild")
    assert old in text
    line = 1 + text[: text.index(old)].count("\n")
    with pytest.raises(JobError, match=f"line {line}: .*{says}"):
        read(tmp_path, text.replace(old, new))


def test_what_decides_pixels_decides_the_identity(tmp_path):
    spec = read(tmp_path, template("CubeBuild"))
    area = {"type": "Point", "coordinates": [3.0, 43.0]}
    same = spec_hash(spec, area, None)
    run = spec.run.model_copy(update={"lease_s": 5})
    assert spec_hash(spec.model_copy(update={"run": run, "name": "other"}), area, None) == same
    recipe = spec.recipe.model_copy(update={"fill": "none"})
    assert spec_hash(spec.model_copy(update={"recipe": recipe}), area, None) != same
    assert spec_hash(spec, {"type": "Point", "coordinates": [3.0, 44.0]}, None) != same
    assert spec_hash(spec, area, "another model") != same
