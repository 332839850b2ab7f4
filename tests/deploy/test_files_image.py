"""The worker's image, built and run as a pod: without Docker, as root in a virtual machine.

The base is a Debian of mmdebstrap with this Python in it, because a registry may be out of reach;
the Dockerfile is the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from tests.deploy.files import BASE, DEPLOY, ROOT, documents

pytestmark = [pytest.mark.podman, pytest.mark.slow, pytest.mark.timeout(3600)]

IMAGE = "localhost/cropcube-worker:test"
PYTHON = "localhost/cropcube-python:test"
#: What CPython's own modules link to.
LIBRARIES = "libssl3,libsqlite3-0,libffi8,libbz2-1.0,liblzma5,zlib1g,libreadline8,libncursesw6"
#: Programs and settings with which rootless needs and missing cgroup drivers do not matter.
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
#: What a pod of ours may and may not do; its exit code is what a job with bad data has.
INSIDE = """\
import os, sys
from distributed.system import MEMORY_LIMIT
from cube.kernels import self_test
self_test()
assert os.getuid() == 10001
assert MEMORY_LIMIT <= 3 * 2**30, MEMORY_LIMIT
try:
    open("/opt/cropcube/new", "w")
except OSError:
    sys.exit(65)
sys.exit("the root file system can be written")
"""


def run(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    for tool in ("mmdebstrap", "buildah", "podman", "runc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("building a base image needs root")
    folder = tmp_path_factory.mktemp("image")
    conf = folder / "containers.conf"
    conf.write_text(CONTAINERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(conf))
        build_python(folder)
        build_worker(folder)
        yield folder
        run("podman", "rmi", "--force", IMAGE, PYTHON)


def build_python(folder: Path) -> None:
    context = folder / "context"
    wanted = f"ca-certificates,{LIBRARIES}"
    context.mkdir()
    run("mmdebstrap", "--variant=minbase", f"--include={wanted}", "bookworm", context / "base.tar")
    library = Path(sysconfig.get_path("stdlib"))
    unneeded = shutil.ignore_patterns("test", "site-packages", "config-*", "__pycache__")
    target = context / "python"
    shutil.copytree(library, target / "lib" / library.name, ignore=unneeded)
    (target / "lib" / library.name / "site-packages").mkdir()
    for shared in Path(sys.base_prefix, "lib").glob("libpython3*"):
        shutil.copy2(shared, target / "lib")
    (target / "bin").mkdir()
    shutil.copy2(Path(sys.base_prefix, "bin", "python3").resolve(), target / "bin" / "python3")
    (context / "Dockerfile").write_text(
        "FROM scratch\nADD base.tar /\nCOPY python /usr/local\nRUN ldconfig\n"
    )
    run("buildah", "bud", "--isolation=chroot", "--network=host", "--tag", PYTHON, context)


def build_worker(folder: Path) -> None:
    """Build with this machine's way to packages, if it has one of its own."""
    settings = dict(
        line.split("=", 1)
        for line in run(sys.executable, "-m", "pip", "config", "list").splitlines()
        if line.startswith(("global.", ":env:."))
    )
    plain = {key.rpartition(".")[2]: value.strip("'") for key, value in settings.items()}
    config = folder / "pip.conf"
    lines = "".join(f"{key} = {value}\n" for key, value in plain.items())
    config.write_text(f"[global]\n{lines}")
    words = " ".join(plain.values()).split()
    # An index in a folder links to files beside it.
    indexes = {Path(word.removeprefix("file://")).parent for word in words if word[:5] == "file:"}
    paths = indexes | {Path(word) for word in words if "://" not in word}
    mounts = [
        f"--volume={path}:{path}:ro" for path in paths if path.is_absolute() and path.exists()
    ]
    arguments = {"BASE": PYTHON, "GPU_BASE": PYTHON, "TORCH_INDEX": "https://pypi.org/simple"}
    run(
        *("buildah", "bud", "--isolation=chroot", "--network=host", "--target", "worker"),
        *("--file", DEPLOY / "docker" / "Dockerfile"),
        *("--ignorefile", DEPLOY / "docker" / "Dockerfile.dockerignore"),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        *(f"--volume={config}:/etc/pip.conf:ro", *mounts),
        *("--tag", IMAGE, ROOT),
    )


def pod(command: list[str]) -> str:
    """Return the pod of the Kubernetes Job as text, with another command."""
    (job,) = documents(BASE / "job.yaml")
    spec = job["spec"]["template"]["spec"]
    # Podman knows neither accounts nor settings of a cluster.
    del spec["serviceAccountName"], spec["containers"][0]["envFrom"]
    del spec["volumes"][0]["emptyDir"]["sizeLimit"]
    spec["containers"][0] |= {"image": IMAGE, "args": command, "imagePullPolicy": "Never"}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cropcube"}, "spec": spec}
    return yaml.safe_dump(made)


def test_the_image_runs_without_rights_network_or_a_writable_root(image):
    out = run(
        *("podman", "run", "--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"),
        *("--network=none", "--security-opt=no-new-privileges", IMAGE),
        *("cropcube", "job", "template"),
    )
    assert "apiVersion: cropcube/v1" in out
    packages = run("podman", "run", "--rm", "--network=none", IMAGE, "pip", "list")
    assert "dask-gateway" in packages
    assert "nvidia" not in packages
    # Training and prediction on a CPU do without what was left out.
    run("podman", "run", "--rm", "--network=none", IMAGE, "python", "-c", "import xgboost, torch")


def test_the_jobs_pod_runs_as_its_spec_says(image, tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text(pod(["python", "-c", INSIDE]))
    run("podman", "kube", "play", path)
    try:
        code = run("podman", "wait", "cropcube-run")
        said = run("podman", "logs", "cropcube-run")
    finally:
        run("podman", "kube", "down", path)
    assert code == "65", said
