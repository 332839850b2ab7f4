"""Dockerfile, compose file, SLURM files and workflows, each by the checker of its kind.

Every checker is also given a copy with a mistake, which it must refuse.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

import distributed
import pytest
import yaml
from distributed.security import Security

from deploy.cluster.environment import GDAL
from deploy.docker.certificates import write_certificates
from tests.deploy.files import DEPLOY, ROOT, broken, check, program

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
SBATCH = DEPLOY / "slurm" / "cropcube_array.sbatch"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"


def test_the_dockerfile_is_clean(tmp_path):
    hadolint = program("hadolint")
    assert check(hadolint, DOCKERFILE).returncode == 0
    wrong = broken(DOCKERFILE, tmp_path, "USER 10001:10001\nWORKDIR", "USER root\nWORKDIR")
    refused = check(hadolint, wrong)
    assert refused.returncode == 1
    assert "DL3002" in refused.stdout


def test_images_set_what_workers_are_started_with_elsewhere():
    text = DOCKERFILE.read_text()
    (worker,) = re.findall(r"FROM \$\{BASE\} AS worker\n(.*?)\nFROM", text, re.DOTALL)
    set_there = dict(re.findall(r"\b(GDAL_[A-Z_]+)=(\S+)", worker))
    assert set_there == dict(GDAL)


def test_every_image_runs_as_a_plain_user_under_an_init():
    text = DOCKERFILE.read_text()
    for name in ("worker", "trainer-gpu"):
        body = text.partition(f" AS {name}\n")[2].partition("\nFROM ")[0]
        assert "USER 10001:10001" in body
        assert 'ENTRYPOINT ["tini", "-g", "--"]' in body
    # The notebook starts from the worker and changes neither.
    notebook = text.partition("FROM worker AS notebook\n")[2].partition("\nFROM ")[0]
    assert "USER" not in notebook
    assert "ENTRYPOINT" not in notebook


def test_the_build_sees_nothing_but_what_it_copies():
    kept = {
        line.removeprefix("!")
        for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        word.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert kept == copied


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "place", "excused"),
    [
        # The base is an argument, with a tag; jobs end, they have no health to ask for.
        ("dockerfile", DOCKERFILE, "CKV_DOCKER_2,CKV_DOCKER_7"),
        ("github_actions", ROOT / ".github", ""),
    ],
)
def test_checkov_finds_nothing(framework, place, excused):
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed (.venv-checkov, see Makefile)")
    where = "-d" if place.is_dir() else "-f"
    flags = ["--framework", framework, "--skip-download", "--compact", "--quiet"]
    found = check(CHECKOV, where, place, *flags, *(["--skip-check", excused] if excused else []))
    assert found.returncode == 0, found.stdout
    if excused:
        # It did look: without the excuses it complains.
        assert check(CHECKOV, where, place, *flags).returncode == 1


def test_the_compose_file_fits_its_schema(tmp_path):
    schema = (program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec")
    good = check(*schema, COMPOSE)
    assert good.returncode == 0, good.stdout
    assert check(*schema, broken(COMPOSE, tmp_path, "restart:", "restrat:")).returncode == 1


def test_the_composed_machine_is_closed_to_others():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["user"] == "10001:10001", name
        assert "no-new-privileges:true" in service["security_opt"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    # Nobody gets on without a certificate, and nobody runs a notebook without a token.
    for name in ("scheduler", "worker", "jupyter"):
        assert services[name]["environment"]["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
    assert ":?" in services["jupyter"]["environment"]["JUPYTER_TOKEN"]


def test_certificates_let_in_who_has_them_and_nobody_else(tmp_path):
    write_certificates(tmp_path)
    key = tmp_path / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    write_certificates(tmp_path)
    assert key.read_text() == before
    ca, cert = str(tmp_path / "ca.pem"), str(tmp_path / "cert.pem")
    pairs = {
        f"tls_{role}_{kind}": path
        for role in ("scheduler", "worker", "client")
        for kind, path in (("cert", cert), ("key", str(key)))
    }
    security = Security(require_encryption=True, tls_ca_file=ca, **pairs)
    with distributed.LocalCluster(
        n_workers=1,
        processes=False,
        protocol="tls",
        security=security,
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        with distributed.Client(cluster.scheduler_address, security=security) as client:
            assert client.submit(sum, (1, 2)).result(timeout=30) == 3
        with pytest.raises(OSError, match=r"(?i)timed out|tls|ssl|security"):
            distributed.Client(
                cluster.scheduler_address, security=Security.temporary(), timeout=2
            ).close()


def test_the_slurm_script_is_clean_and_starts_the_right_part(tmp_path):
    shellcheck = program("shellcheck")
    assert check(shellcheck, SBATCH).returncode == 0
    wrong = broken(SBATCH, tmp_path, '"$run_root"', "$run_root")
    assert check(shellcheck, wrong).returncode == 1
    # A stand-in for cropcube that prints its words, where SLURM would give element 3 of 8.
    stand_in = tmp_path / "cropcube"
    stand_in.write_text('#!/bin/sh\necho "$@"\nexit 75\n')
    stand_in.chmod(0o755)
    slurm = ("SLURM_ARRAY_TASK_ID=3", "SLURM_ARRAY_TASK_COUNT=8")
    path = f"PATH={tmp_path}:/usr/bin:/bin"
    done = check("env", "-i", path, *slurm, "bash", SBATCH, "/shared/a run")
    assert done.stdout == "job run /shared/a run --shard 3/8\n"
    assert done.returncode == 75
    assert check("env", "-i", path, *slurm, "bash", SBATCH).returncode != 0
    absent = check("env", "-i", "PATH=/usr/bin:/bin", *slurm, "bash", SBATCH, "/shared/run")
    assert absent.returncode == 78


def test_dask_jobqueue_knows_every_setting():
    dask_jobqueue = pytest.importorskip("dask_jobqueue")
    defaults = Path(dask_jobqueue.__file__).with_name("jobqueue.yaml")
    known = yaml.safe_load(defaults.read_text())["jobqueue"]["slurm"]
    ours = yaml.safe_load((DEPLOY / "slurm" / "dask_jobqueue.yaml").read_text())["jobqueue"]
    assert set(ours) == {"slurm"}
    assert set(ours["slurm"]) <= set(known)


def test_workflows_fit_their_schema(tmp_path):
    schema = (program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows")
    assert len(WORKFLOWS) == 4
    good = check(*schema, *WORKFLOWS)
    assert good.returncode == 0, good.stdout
    wrong = broken(WORKFLOWS[0], tmp_path, "runs-on:", "run-on:")
    assert check(*schema, wrong).returncode == 1


def test_workflows_hold_the_least_rights(tmp_path):
    zizmor = (program("zizmor"), "--offline", "--quiet")
    good = check(*zizmor, *WORKFLOWS)
    assert good.returncode == 0, good.stdout
    hashed = next(iter(re.findall(r"@[0-9a-f]{40}", WORKFLOWS[0].read_text())))
    loose = check(*zizmor, broken(WORKFLOWS[0], tmp_path, hashed, "@v5"))
    assert loose.returncode != 0
    assert "unpinned-uses" in loose.stdout
    for path in WORKFLOWS:
        flow = yaml.safe_load(path.read_text())
        assert flow["permissions"] == {}, path.name
        # YAML 1.1 reads the key "on" as true.
        assert "pull_request_target" not in flow[True], path.name
        for job in flow["jobs"].values():
            assert job["timeout-minutes"] <= 120
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), path.name


def test_workflows_call_what_the_makefile_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {
        target for path in WORKFLOWS for target in re.findall(r"\bmake ([a-z-]+)", path.read_text())
    }
    assert called <= targets
