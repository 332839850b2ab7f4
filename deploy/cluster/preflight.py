"""The preflight: what a build needs, tried on every worker, with the setting to change."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import distributed
import numpy as np
from dask.utils import format_bytes
from distributed.comm import CommClosedError

from cube.errors import redact
from deploy.cluster.environment import GDAL
from deploy.cluster.versions import Versions

T = TypeVar("T")

#: What a worker needs: bytes of memory, of disk for spilling, and seconds its clock may be off.
MEMORY, DISK, SKEW = 2**30, 2 * 2**30, 60.0


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    what : str
        Its name.
    ok : bool
        Whether a build can go ahead.
    found : str
        What was seen, the worst of all workers.
    remedy : str
        The setting to change; empty when there is nothing to change.
    """

    what: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Preflight:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of a build."""
        return all(one.ok for one in self.findings)

    def text(self) -> str:
        """Return one line per finding, and below it what to change."""
        lines = []
        for one in self.findings:
            lines.append(f"{'ok  ' if one.ok else 'FAIL'} {one.what}: {one.found}")
            if not one.ok:
                lines.append(f"     → {one.remedy}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {"ok": self.ok, "findings": [asdict(one) for one in self.findings]}


@dataclass(frozen=True)
class Probe:
    """What one worker tells about itself; a text that is not empty tells of a failure."""

    kernel: str
    block: str
    memory: int
    machine_memory: int
    host: str
    disk: int
    folder: str
    unset: tuple[str, ...]
    threads_set: bool


def preflight(client: distributed.Client, versions: Versions, href: str | None) -> Preflight:
    """Ask every worker, and judge what they say."""
    different = versions.differences
    same = Finding(
        "versions",
        not different,
        versions.text(different) if different else "the same everywhere",
        "start scheduler and workers from the image or environment of this process",
    )
    if not versions.workers:
        return Preflight((same, Finding("workers", False, "none", "scale(1), or --workers 1")))
    if {"python", "cropcube"} & set(different):
        return Preflight((same,))  # these workers cannot run what follows
    skew = _skew(client)
    probes = _answers(client, probe, href)
    return Preflight((same, *_judge(probes), _clock(skew)))


def _answers(client: distributed.Client, ask: Callable[..., T], *arguments: Any) -> dict[str, T]:
    """Return what each worker answers; one that leaves meanwhile, as they may, is left out."""
    told = client.run(ask, *arguments, on_error="return")
    for answer in told.values():
        if isinstance(answer, Exception) and not isinstance(answer, CommClosedError):
            raise answer
    return {a: answer for a, answer in told.items() if not isinstance(answer, CommClosedError)}


def _judge(probes: dict[str, Probe]) -> Iterable[Finding]:
    each = list(probes.values())
    kernels = sorted({one.kernel for one in each if one.kernel})
    yield Finding(
        "kernel",
        not kernels,
        "; ".join(kernels) or "right values",
        "install numba and numpy in the versions of constraints.txt in the workers' image",
    )
    blocks = sorted({one.block for one in each if one.block})
    yield Finding(
        "block read",
        not blocks,
        "; ".join(blocks) or "one block read by each worker",
        "let the workers reach the file: network policy, proxy, credentials, or another href",
    )
    yield from _memory(each)
    poorest = min(each, key=lambda one: one.disk)
    yield Finding(
        "temporary disk",
        poorest.disk >= DISK,
        f"{format_bytes(poorest.disk)} free in {poorest.folder} on {poorest.host}",
        f"free {format_bytes(DISK)} there, or point DASK_TEMPORARY_DIRECTORY of the workers at "
        "another disk: a full one makes workers hang",
    )
    yield _environment(each)


def _memory(each: list[Probe]) -> Iterable[Finding]:
    poorest = min(each, key=lambda one: one.memory)
    yield Finding(
        "memory of a worker",
        poorest.memory >= MEMORY,
        format_bytes(poorest.memory),
        f"worker_memory='{format_bytes(MEMORY)}' or more",
    )
    promised: dict[str, int] = {}
    for one in each:
        promised[one.host] = promised.get(one.host, 0) + one.memory
    limits = {one.host: one.machine_memory for one in each}
    host = max(promised, key=lambda name: promised[name] / limits[name])
    # Dask itself promises a machine's memory rounded per worker.
    yield Finding(
        "memory of a machine",
        promised[host] <= limits[host] * 1.01,
        f"workers on {host} may use {format_bytes(promised[host])} of {format_bytes(limits[host])}",
        "fewer workers, or a smaller worker_memory: beyond the limit the system kills them",
    )


def _environment(each: list[Probe]) -> Finding:
    unset = sorted({name for one in each for name in one.unset})
    threads = any(one.threads_set for one in each)
    found = [f"not as wanted: {', '.join(unset)}"] if unset else []
    found += ["GDAL_NUM_THREADS is set, which drops HTTP retries"] if threads else []
    wanted = " ".join(f"{name}={GDAL[name]}" for name in unset)
    return Finding(
        "GDAL settings",
        not found,
        "; ".join(found) or "as wanted",
        f"in the environment of the workers before they start: {wanted or 'no GDAL_NUM_THREADS'}",
    )


def _clock(skew: float) -> Finding:
    return Finding(
        "clock",
        abs(skew) <= SKEW,
        f"{skew:+.1f} s against this process",
        "synchronise the clocks of the workers' machines (NTP): signed requests are refused",
    )


def _skew(client: distributed.Client) -> float:
    """Return the largest difference of a worker's clock in seconds, travel time taken off."""
    before = time.time()
    told = _answers(client, time.time)
    after = time.time()
    # An honest clock lies between asking and answering.
    return max((max(0.0, t - after) + min(0.0, t - before) for t in told.values()), key=abs)


def probe(href: str | None, dask_worker: distributed.Worker) -> Probe:
    """Try everything on the calling worker; failures become text, one does not hide another."""
    import socket

    from distributed.system import MEMORY_LIMIT

    folder = dask_worker.local_directory
    return Probe(
        kernel=_failure(_try_kernel),
        block=_failure(lambda: _try_block(href, Path(folder))),
        memory=int(dask_worker.memory_manager.memory_limit or MEMORY_LIMIT),
        machine_memory=int(MEMORY_LIMIT),
        host=socket.gethostname(),
        disk=shutil.disk_usage(folder).free,
        folder=folder,
        unset=tuple(name for name, value in GDAL.items() if os.environ.get(name) != value),
        threads_set="GDAL_NUM_THREADS" in os.environ,
    )


def _failure(attempt: Any) -> str:
    try:
        attempt()
    except Exception as error:
        # Whatever goes wrong on a worker is the finding.
        return f"{type(error).__name__}: {error}"
    return ""


def _try_kernel() -> None:
    from cube.kernels import self_test

    self_test()


def _try_block(href: str | None, folder: Path) -> None:
    if href is not None:
        try:
            read_block(href)
        except Exception as error:
            raise OSError(f"{redact(href)}: {error}") from error
        return
    with tempfile.TemporaryDirectory(dir=folder) as place:
        pixels = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
        _write_block(Path(place) / "block.tif", pixels)
        if not np.array_equal(read_block(f"{place}/block.tif"), pixels):
            raise ValueError("the pixels that came back are not those that were written")


def _write_block(path: Path, pixels: np.ndarray) -> None:
    import rasterio
    from rasterio.transform import from_origin

    height, width = pixels.shape
    profile = {"driver": "GTiff", "tiled": True, "compress": "deflate", "predictor": 2}
    profile |= {"blockxsize": width, "blockysize": height, "crs": "EPSG:32631"}
    with rasterio.open(
        path,
        "w",
        width=width,
        height=height,
        count=1,
        dtype=pixels.dtype,
        transform=from_origin(300_000, 4_800_000, 10, 10),
        **profile,
    ) as file:
        file.write(pixels, 1)


def read_block(href: str) -> np.ndarray:
    """Read the first block of a GeoTIFF with the reader that builds use.

    Returns
    -------
    ndarray of uint8 or uint16 [y, x]

    Raises
    ------
    FetchError
        If it cannot be read.
    """
    from cube.grid import Window
    from cube.ranges import FetchError, Source
    from cube.tiff import copy_block, read_layout

    # The user names this file, so it may lie inside the user's own network.
    source = Source(href, private=True)
    layout = read_layout(source)
    height, width = layout.block
    out = np.zeros((height, width), layout.dtype)
    size = int(layout.sizes[0])
    if size:
        data = memoryview(bytearray(size))
        if source.read_into(int(layout.offsets[0]), data) < size:
            raise FetchError("corrupt", "the file ends inside its first block")
        copy_block(layout, 0, data, Window(row=0, col=0, height=height, width=width), out)
    return out
