"""Kubernetes manifests and Helm overlays, checked offline."""

from __future__ import annotations

import copy
import json
import re
from itertools import pairwise

import kubernetes_validate
import pytest
import yaml

from deploy.gateway.helm.embed import HELM, OVERLAYS, embedded
from deploy.jobs.failures import Failure, exit_code
from tests.deploy.files import BASE, DEPLOY, ROOT, VERSIONS, check, documents, rendered
from tests.deploy.files import OVERLAYS as KUSTOMIZED
from tests.deploy.test_files import CHECKOV

MANIFESTS = [
    *sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml"),
    HELM / "networkpolicy.yaml",
]
ARGO = DEPLOY / "kubernetes" / "argo" / "workflowtemplate.yaml"
#: What trying again does not mend.
PERMANENT = [2, 65, 77, 78]


def valid(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def containers_of(pod):
    for container in pod["containers"]:
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        yield container


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version):
    for path in MANIFESTS:
        for manifest in documents(path):
            valid(manifest, version)


def test_validation_sees_a_typing_error():
    (job,) = documents(BASE / "job.yaml")
    job["spec"]["backofLimitPerIndex"] = job["spec"].pop("backoffLimitPerIndex")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimitPerIndex"):
        valid(job, VERSIONS[-1])


@pytest.mark.parametrize("overlay", KUSTOMIZED)
def test_overlays_are_valid_and_count_alike(overlay):
    manifests = rendered(overlay)
    # What an overlay changes, no version is strange to: the oldest and the newest will do.
    for version in (VERSIONS[0], VERSIONS[-1]):
        for manifest in manifests:
            valid(manifest, version)
    (job,) = (one for one in manifests if one["kind"] == "Job")
    require_parts(job)
    (settings,) = (one for one in manifests if one["kind"] == "ConfigMap")
    assert settings["data"]["RUN_ROOT"].startswith("s3://")
    # Kustomize gives the ConfigMap a name of its own, and the pods must use that.
    (source,) = job["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert source["configMapRef"]["name"] == settings["metadata"]["name"]
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "cropcube"


def require_parts(job):
    spec = job["spec"]
    (container,) = containers_of(spec["template"]["spec"])
    *words, shard = container["args"]
    assert words == ["cropcube", "job", "run", "$(RUN_ROOT)", "--shard"]
    # As many pods as parts, or tasks would never be begun.
    assert shard == f"$(JOB_COMPLETION_INDEX)/{spec['completions']}"
    assert spec["completionMode"] == "Indexed"


def test_the_job_gives_up_at_once_where_a_rerun_mends_nothing():
    (job,) = documents(BASE / "job.yaml")
    require_parts(job)
    fail, ignore = job["spec"]["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailIndex"
    assert fail["onExitCodes"]["values"] == PERMANENT
    assert fail["onExitCodes"]["containerName"] == "run"
    assert ignore["action"] == "Ignore"
    assert ignore["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert exit_code([Failure.DATA]) in PERMANENT
    assert exit_code([Failure.AUTH]) in PERMANENT
    for passing in (Failure.TRANSIENT, Failure.OOM, Failure.LOST, Failure.OUTPUT):
        assert exit_code([passing]) not in PERMANENT


@pytest.mark.parametrize("path", [BASE / "job.yaml", BASE / "cronjob.yaml"], ids=lambda p: p.stem)
def test_pods_have_no_rights_to_spare(path):
    (manifest,) = documents(path)
    spec = manifest["spec"]
    pod = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = containers_of(pod)
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108


@pytest.mark.parametrize("path", [BASE / "networkpolicy.yaml", HELM / "networkpolicy.yaml"])
def test_pods_reach_no_private_network_and_no_metadata_service(path):
    (policy,) = documents(path)
    spec = policy["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    blocks = [to["ipBlock"] for rule in spec["egress"] for to in rule["to"] if "ipBlock" in to]
    four, six = blocks
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(
        four["except"]
    )
    assert {"fc00::/7", "fe80::/10"} <= set(six["except"])
    (world,) = (r for r in spec["egress"] if any("ipBlock" in to for to in r["to"]))
    assert world["ports"] == [{"protocol": "TCP", "port": 443}]


@pytest.mark.slow
@pytest.mark.parametrize("overlay", KUSTOMIZED)
def test_checkov_finds_nothing(overlay, tmp_path):
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed (.venv-checkov, see Makefile)")
    # The user's registry decides about digests; a version is fetched once.
    flags = ["--framework", "kubernetes", "--skip-download", "--compact", "--quiet"]
    flags += ["--skip-check", "CKV_K8S_15,CKV_K8S_43"]
    manifests, path = rendered(overlay), tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    found = check(CHECKOV, "-f", path, *flags)
    assert found.returncode == 0, found.stdout
    wrong = copy.deepcopy(manifests)
    (job,) = (one for one in wrong if one["kind"] == "Job")
    del job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    path.write_text(yaml.safe_dump_all(wrong))
    assert "CKV_K8S_11" in check(CHECKOV, "-f", path, *flags).stdout


def test_the_argo_template_runs_a_valid_pod_with_the_same_words():
    (flow,) = documents(ARGO)
    spec = flow["spec"]
    templates = {template["name"]: template for template in spec["templates"]}
    assert spec["entrypoint"] in templates
    steps = [step for group in templates["job"]["steps"] for step in group]
    assert all(step["template"] in templates for step in steps)
    assert [step["name"] for step in steps] == ["plan", "run", "verify"]
    words = {
        step["name"]: json.loads(step["arguments"]["parameters"][0]["value"]) for step in steps
    }
    assert words["run"] == [
        *("job", "run", "{{workflow.parameters.run-root}}"),
        *("--shard", "{{item}}/{{workflow.parameters.shards}}"),
    ]
    container = templates["cropcube"]["container"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "cropcube"},
        "spec": {
            "containers": [{"name": "main", **container}],
            "volumes": spec["volumes"],
            "securityContext": spec["securityContext"],
        },
    }
    assert list(containers_of(pod["spec"]))
    valid(pod, VERSIONS[0])
    (codes,) = re.findall(r"\[[\d, ]+\]", templates["cropcube"]["retryStrategy"]["expression"])
    assert json.loads(codes) == PERMANENT
    given = {parameter["name"] for parameter in spec["arguments"]["parameters"]}
    assert set(re.findall(r"workflow\.parameters\.([\w-]+)", ARGO.read_text())) == given


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_carry_the_handler_as_it_is(name):
    handler = (HELM.parent / "options.py").read_text(encoding="utf-8")
    assert gateway_of(name)["extraConfig"]["10-options.py"] == handler
    text = (HELM / name).read_text(encoding="utf-8")
    assert embedded(text, handler) == text
    changed = embedded(text, "a = 1\n\nb = 2\n")
    part = yaml.safe_load(changed)
    part = part.get("dask-gateway", part)
    assert part["gateway"]["extraConfig"]["10-options.py"] == "a = 1\n\nb = 2\n"
    assert "20-cropcube.py" in part["gateway"]["extraConfig"]
    with pytest.raises(ValueError, match="one block"):
        embedded("gateway: {}\n", handler)


def gateway_of(name):
    values = yaml.safe_load((HELM / name).read_text(encoding="utf-8"))
    return values.get("dask-gateway", values)["gateway"]


def test_the_hub_has_the_same_gateway():
    ours, hub = map(gateway_of, OVERLAYS)
    for part in ("backend", "extraConfig"):
        assert ours[part] == hub[part]
    values = yaml.safe_load((HELM / OVERLAYS[1]).read_text())
    workers = f"{hub['backend']['image']['name']}:{hub['backend']['image']['tag']}"
    user = values["jupyterhub"]["singleuser"]
    assert user["extraEnv"]["DASK_GATEWAY__CLUSTER__OPTIONS__IMAGE"] == workers
    assert user["image"]["tag"] == hub["backend"]["image"]["tag"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_line_of_an_overlay_is_explained(name):
    """A comment stands above each setting, or above the group that it opens."""
    lines = (HELM / name).read_text(encoding="utf-8").splitlines()
    code = False
    for before, line in pairwise(lines):
        if re.match(r" *[12]0-\w+\.py: \|", line):
            code = True
        elif code and line and not line.startswith("      "):
            code = False
        setting = re.match(r" *[\w-]+: +[^|\s]", line)
        if setting and not code:
            assert before.lstrip().startswith("#"), f"{name}: no word about '{line.strip()}'"


@pytest.fixture
def chart(tmp_path):
    """A chart that does with values what dask-gateway's does with extraConfig, under our schema."""
    helm = pytest.importorskip("helm_python")
    folder = tmp_path / "gateway"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: gateway\nversion: 0.0.1\n")
    (folder / "values.yaml").write_text("gateway: {extraConfig: {}}\n")
    (folder / "values.schema.json").write_text(
        (ROOT / "tests" / "deploy" / "gateway_values.schema.json").read_text()
    )
    (folder / "templates" / "config.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: gateway}\n"
        "data:\n  extraConfig: {{ .Values.gateway.extraConfig | toJson | quote }}\n"
    )
    assert not helm.lint(str(folder))["errors"]
    with helm.Chart.load(str(folder)) as loaded:
        yield helm, loaded


@pytest.mark.parametrize("name", OVERLAYS)
def test_helm_takes_the_values_and_hands_the_handler_on(chart, name):
    helm, loaded = chart
    values = yaml.safe_load((HELM / name).read_text(encoding="utf-8"))
    values = values.get("dask-gateway", values)
    loaded.validate_schema(values)
    (manifest,) = loaded.render(values).values()
    blocks = json.loads(yaml.safe_load(manifest)["data"]["extraConfig"])
    assert blocks["10-options.py"] == (HELM.parent / "options.py").read_text(encoding="utf-8")
    wrong = copy.deepcopy(values)
    wrong["gateway"]["extraConfg"] = wrong["gateway"].pop("extraConfig")
    with pytest.raises(helm.HelmValuesError, match="extraConfg"):
        loaded.validate_schema(wrong)
    latest = copy.deepcopy(values)
    latest["gateway"]["backend"]["image"]["tag"] = "latest"
    with pytest.raises(helm.HelmValuesError, match="tag"):
        loaded.validate_schema(latest)


@pytest.fixture
def gateway():
    """The configuration that the real server makes of the overlay's code."""
    pytest.importorskip("kubernetes_asyncio")
    from dask_gateway_server.backends.kubernetes.controller import KubeController
    from traitlets.config import Config

    part = gateway_of(OVERLAYS[0])
    config = Config()
    # As the chart's own configuration file runs them: in order, in one namespace.
    namespace = {"c": config}
    for name in sorted(part["extraConfig"]):
        exec(compile(part["extraConfig"][name], name, "exec"), namespace)  # noqa: S102
    return part, config, KubeController(config=config, gateway_instance="test")


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_the_gateway_makes_valid_pods_of_the_overlay(gateway, role):
    from dask_gateway_server.backends.kubernetes.backend import KubeClusterConfig

    part, config, controller = gateway
    image = part["backend"]["image"]
    extra = {
        f"{role}_extra_pod_config": part["backend"][role]["extraPodConfig"],
        f"{role}_extra_container_config": part["backend"][role]["extraContainerConfig"],
    }
    cluster = KubeClusterConfig(
        config=config, image=f"{image['name']}:{image['tag']}", namespace="hub", **extra
    )
    pod = controller.make_pod("hub", "abc", cluster, is_worker=role == "worker")
    valid(pod, VERSIONS[0])
    valid(pod, VERSIONS[-1])
    (container,) = containers_of(pod["spec"])
    assert container["args"][:2] == ["dask", role]
    # Added to what the gateway mounts itself.
    assert {"dask-credentials", "tmp"} == {mount["name"] for mount in container["volumeMounts"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    # The policy beside the overlay speaks of these labels.
    (policy,) = documents(HELM / "networkpolicy.yaml")
    (chosen,) = policy["spec"]["podSelector"]["matchExpressions"]
    assert pod["metadata"]["labels"][chosen["key"]] in chosen["values"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "dask-gateway"


def test_the_embedded_handler_holds_users_to_their_limits(gateway):
    _, config, _ = gateway
    options = config.Backend.cluster_options
    assert config.ClusterConfig.idle_timeout > 0
    chosen = options.get_configuration({"worker_cores": 2, "environment": {"GDAL_SKIP": "VRT"}}, "")
    assert chosen["worker_cores"] == 2
    assert chosen["image"].startswith("ghcr.io/example/cropcube-worker:")
    with pytest.raises(ValueError, match="LD_PRELOAD"):
        options.get_configuration({"environment": {"LD_PRELOAD": "x"}}, "")
    with pytest.raises(ValueError, match="latest"):
        options.get_configuration({"image": "ghcr.io/example/cropcube-worker:latest"}, "")
