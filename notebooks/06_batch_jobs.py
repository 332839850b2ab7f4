# %% [markdown]
# # 6 · A batch job that is killed
#
# **Background.** The cube of a country takes hours or days. In that time a machine restarts, a
# quota runs out, somebody pulls a plug. What matters then is what is lost: the tiles that were
# being built, or the work of days.
#
# **Description.** This notebook
#
# 1. writes a job file, plans it and estimates what it takes,
# 2. runs it as a process and kills that in the middle,
# 3. looks at what is left, and resumes on a cluster,
# 4. checks that no finished tile was built twice,
# 5. verifies the cube, and damages a copy to see that it is noticed,
# 6. puts what was used beside the estimate.
#
# It needs no network: the archive is simulated, eight regions of France with a year of passes.
# What is done here with `cropcube job …` is done in the same way for a country and in a bucket.

# %% [markdown]
# ## Getting started

# %% tags=["parameters"]
cache = "cache"
workers = 2
kill_after = 5  # tiles that are done when the run is killed

# %%
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import Patch
from shared import show

from cube.simulate import FRENCH_REGIONS, Settings, simulate
from deploy import open_cluster
from deploy.jobs import open_job, report, run_job, status, verify
from deploy.jobs.cost import beside, expected
from deploy.jobs.report import read_attempts

cache = Path(cache)
archive = cache / "regions"
if not (archive / "done").exists():
    simulate(
        archive,
        Settings(
            seed=11,
            zones_per_region=4,
            zone_metres=1280,
            gap_metres=320,
            new_area_metres=320,
            revisit_days=20,
        ),
    )
    (archive / "done").touch()
cluster = open_cluster("local", workers=workers)  # for the second run

PROGRAM = Path(sys.executable).with_name("cropcube")  # beside the Python that runs this


def cropcube(*words, code=0):
    """Run the command line and return what it prints; `code` is what it must exit with."""
    ended = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.returncode == code, ended.stderr
    return ended.stdout


# %% [markdown]
# ## 1 · Write, plan, estimate
#
# A job is a file. `cropcube job template` prints one with every key; these are the ones that a cube
# needs. What stands under `run` changes no pixel and may be changed between two runs.

# %%
spec = f"""\
apiVersion: cropcube/v1
kind: CubeBuild
name: eight-regions
area: ../regions/zones.gpkg
provider: ../regions/items.json
recipe: {{bands: [blue, green, red, nir], start: 2023-01, end: 2023-12}}
run: {{at_once: {workers}, lease_s: 60}}
"""
folder = cache / "jobs"
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True)
(folder / "job.yaml").write_text(spec)
print(spec)

# %% [markdown]
# The plan searches once and freezes what it found. Each tile is a task.

# %%
root = folder / "run"
planned = json.loads(cropcube("job", "plan", folder / "job.yaml", "--out", root, "--json"))
tasks = gpd.read_file(root / "tasks.geojson")
assert planned["tasks"] == len(tasks) == tasks.task.nunique()
assert planned["scenes"] == tasks.drop_duplicates("granule").scenes.sum()
tasks.drop(columns=["geometry", "hash"]).set_index("task")

# %% [markdown]
# The estimate is counted from the plan and reads no file. What a plan cannot tell is assumed, and
# said. With `--prices` it has a price too, and with `--budget` it fails where that is too high.

# %%
print(cropcube("job", "estimate", root, "--concurrency", workers))

# %% [markdown]
# ## 2 · Run, and kill
#
# `cropcube job run` writes one JSON line per event. It is listened to here, and once enough tiles
# are done and another one has begun, the process gets SIGKILL: it has no time to clean up.

# %%
told = []
with subprocess.Popen(  # noqa: S603
    [PROGRAM, "job", "run", root], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
) as process:
    for line in process.stdout:
        told.append(json.loads(line))
        if told[-1]["ok"] >= kill_after and told[-1]["event"] == "task_began":
            time.sleep(0.1)
            process.kill()
            killed = datetime.now(UTC)
            break
assert process.returncode == -9
pd.Series(Counter(event["event"] for event in told), name="events").to_frame()

# %% [markdown]
# ## 3 · What is left

# %%
print(cropcube("job", "status", root))

# %% [markdown]
# A task without a marker is not done, whatever was written for it. Tasks that the dead process held
# wait for the next runner: on this machine at once, elsewhere when the lease ends.

# %%
COLOURS = {"done": "#1b7837", "interrupted": "#d95f0e", "waiting": "#d9d9d9"}
job = open_job(root)


def states():
    """Return task → done, interrupted or waiting; none may be failed or running."""
    found = {}
    for one in status(job).tasks:
        assert one.state in ("done", "waiting")
        tried = one.state == "waiting" and one.attempts > 0
        found[one.task] = "interrupted" if tried else one.state
    return found


def task_map(found):
    """Return a map of the tasks: a panel per region, in kilometres."""
    zones = gpd.read_file(archive / "zones.gpkg")
    figure, panels = plt.subplots(2, 4, figsize=(10, 5.6), layout="constrained")
    for panel, region in zip(panels.flat, FRENCH_REGIONS, strict=True):
        here = tasks[tasks.granule.isin([region.granule, region.neighbour])]
        # The zone of the region's granule, and from its corner: kilometres that can be read.
        utm = here.epsg[here.granule == region.granule].iloc[0]
        here = here.to_crs(utm)
        west, south = here.total_bounds[:2]
        here = here.assign(geometry=here.translate(-west, -south).scale(1e-3, 1e-3, origin=(0, 0)))
        for task, shape in zip(here.task, here.geometry, strict=True):
            panel.fill(*shape.exterior.xy, facecolor=COLOURS[found[task]], edgecolor="white")
        inside = zones[zones.region == region.name].to_crs(utm)
        inside.translate(-west, -south).scale(1e-3, 1e-3, origin=(0, 0)).boundary.plot(
            ax=panel, color="black", linewidth=0.6
        )
        panel.set_title(f"{region.name.title()}\n{', '.join(here.granule)}", fontsize=9)
        panel.set(xlabel="", ylabel="")
        panel.set_aspect("equal")
        panel.set_xticks([0, 1, 2, 3])
        panel.set_yticks([0, 1, 2, 3])
        panel.spines[:].set_visible(False)
    counts = Counter(found.values())
    handles = [Patch(color=COLOURS[name], label=f"{name} ({counts[name]})") for name in COLOURS]
    figure.legend(handles=handles, ncols=3, frameon=False, loc="outside lower center")
    figure.supylabel("km", fontsize=9)
    return figure


after_kill = states()
show(
    task_map(after_kill),
    alt="Maps of eight regions after the kill: tiles done, interrupted and waiting, by colour.",
)

# %% [markdown]
# *Figure 1. The tasks after the kill: a panel per region, a coloured area per tile, black lines
# around the zones. Auch, Chartres, Colmar and Béziers lie across two granules, which own a part
# each.*


# %%
def written(place, done):
    """Return file → (time of writing, SHA-256) of the markers and shards of tiles that are done."""
    cube_store = place / "data" / "cube.zarr"
    files = [cube_store / ".cropcube" / f"{task}.json" for task in done]
    for task in done:
        granule, row, col = task.split("-")
        files += (cube_store / granule / "reflectance").glob(f"c/*/*/{row}/{col}")
        files += (cube_store / granule / "observations").glob(f"c/*/{row}/{col}")
    return {
        str(file.relative_to(place)): (
            file.stat().st_mtime_ns,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in files
    }


first_done = {task for task, state in after_kill.items() if state == "done"}
interrupted = {task for task, state in after_kill.items() if state == "interrupted"}
kept = written(root, first_done)
heard = {event["task"] for event in told if event["event"] == "task_done"}
assert heard <= first_done
assert kill_after <= len(first_done) < len(tasks)
assert 1 <= len(interrupted) <= workers
# Each tile that is done: a marker, a shard of the bands and one of the counts.
assert len(kept) == 3 * len(first_done)
print(f"{len(first_done)} of {len(tasks)} tiles done, {len(interrupted)} interrupted")

# %% [markdown]
# ## 4 · Resume
#
# Any runner on any machine may go on. Running the same command again would do; here it is a Dask
# cluster, to which tasks are sent one by one.

# %%
outcome = run_job(root, client=cluster.client)
assert outcome.code == 0
print(f"{outcome.ended}: {outcome.done} of {outcome.total} tasks done")

# %%
at_end = states()
show(
    task_map(at_end),
    alt="Maps of eight regions after the second run: every tile has the colour of done.",
)

# %% [markdown]
# *Figure 2. The same after the second run.*

# %%
attempts = read_attempts(job.folder)
claims = {
    tuple(name.removesuffix(".json").split("/")[1:]): json.loads(job.folder.get(name))
    for name in job.folder.listing("claims")
}
recorded = {(one.task, str(one.attempt)) for one in attempts}
lost = {key: claim for key, claim in claims.items() if key not in recorded}

# Everything is done, and what was done at the kill was not touched: same times, same bytes.
assert set(at_end.values()) == {"done"}
assert written(root, first_done) == kept
# A finished tile was claimed once, an interrupted one twice, and none was finished twice.
tries = Counter(task for task, _ in claims)
assert all(tries[task] == (2 if task in interrupted else 1) for task in tries)
assert set(tries) == set(tasks.task)
assert max(Counter(one.task for one in attempts if one.outcome == "done").values()) == 1
assert {task for task, _ in lost} == interrupted | (first_done - {one.task for one in attempts})
print(f"{len(claims)} attempts at {len(tasks)} tasks, {len(lost)} of them lost")

# %%
begin = min(datetime.fromisoformat(claim["at"]) for claim in claims.values())


def seconds(moment):
    """Return the seconds since the first claim."""
    when = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
    return (when - begin).total_seconds()


first_runner = {event["runner"] for event in told}
rows = {task: row for row, task in enumerate(tasks.task)}
figure, axes = plt.subplots(figsize=(9, 4))
for one in attempts:
    colour = "#1b7837" if one.runner in first_runner else "#2166ac"
    span = seconds(one.ended) - seconds(one.began)
    axes.barh(rows[one.task], span, left=seconds(one.began), color=colour, height=0.7)
for (task, _), claim in lost.items():
    start = seconds(claim["at"])
    axes.barh(
        rows[task], seconds(killed) - start, left=start, color="#d95f0e", hatch="///", height=0.7
    )
axes.axvline(seconds(killed), color="black", linestyle="--", linewidth=1)
axes.text(seconds(killed), -0.9, " SIGKILL", va="bottom", fontsize=9)
axes.set_yticks(list(rows.values()), list(rows))
axes.set_ylim(len(rows) - 0.4, -1)
axes.set_xlabel("seconds since the first claim")
names = {"first run": "#1b7837", "lost at the kill": "#d95f0e", "second run, on Dask": "#2166ac"}
axes.legend(
    handles=[Patch(color=colour, label=name) for name, colour in names.items()],
    frameon=False,
    ncols=3,
    loc="lower center",
    bbox_to_anchor=(0.5, 1.0),
)
axes.spines[["top", "right"]].set_visible(False)
show(
    figure,
    alt="Timeline of attempts per task: the first run until the kill, then the second run.",
)

# %% [markdown]
# *Figure 3. Every attempt. Only the hatched ones are lost; the same tasks come again in the second
# run. Between the two runs nothing happened but this notebook.*

# %% [markdown]
# ## 5 · Is it whole?
#
# `verify` hashes every shard again and compares with the markers. In a copy one byte is changed.

# %%
assert verify(job) == []
copy = folder / "copy"
shutil.copytree(root, copy)
victim = sorted(first_done)[0]
granule, row, col = victim.split("-")
shard = copy / "data" / "cube.zarr" / granule / "reflectance" / "c" / "0" / "0" / row / col
damaged = bytearray(shard.read_bytes())
damaged[len(damaged) // 2] ^= 1
shard.write_bytes(damaged)

print(cropcube("job", "verify", copy, code=65))  # 65: bad data
assert verify(open_job(copy)) == [f"{victim}: the shard of reflectance was changed"]

# %% [markdown]
# With `--repair`, the next run builds that tile again and no other.

# %%
print(cropcube("job", "verify", copy, "--repair", code=75))  # 75: run again
again = [json.loads(line) for line in cropcube("job", "run", copy).splitlines()]
assert [event["task"] for event in again if event["event"] == "task_done"] == [victim]
assert verify(open_job(copy)) == []

# In every marker and shard the same bytes as in the cube that was never damaged.
repaired, whole = (written(place, set(tasks.task)) for place in (copy, root))
assert {name: sha for name, (_, sha) in repaired.items()} == {
    name: sha for name, (_, sha) in whole.items()
}
print(f"built again: {victim}; {len(repaired)} files are the same as in the cube")

# %% [markdown]
# ## 6 · What did it take?

# %%
figures = report(job)  # on the command line: cropcube job report
print(figures.text)
table = beside(figures, expected(job))
table.round(4)

# %%
units = {
    "requests": ("requests", 1),
    "GiB read": ("MiB read", 1024),
    "GiB written": ("MiB written", 1024),
    "GiB of memory per worker": ("MiB of memory per worker", 1024),
    "core-hours": ("core-seconds", 3600),
    "hours": ("seconds", 3600),
}
figure, axes = plt.subplots(figsize=(9, 3.4))
for place, (quantity, (_, factor)) in enumerate(units.items()):
    low, mid, high, used = table.loc[quantity, ["low", "expected", "high", "used"]] * factor
    axes.barh(place, high - low, left=low, color="#bdd7e7", height=0.6)
    axes.plot([mid, mid], [place - 0.3, place + 0.3], color="#08519c", linewidth=2)
    axes.plot(used, place, "o", color="#d95f0e")
    axes.text(used, place - 0.34, f"{used:,.0f}", ha="center", va="bottom", fontsize=8)
axes.set_xscale("log")
axes.set_yticks(range(len(units)), [name for name, _ in units.values()])
axes.set_ylim(len(units) - 0.5, -0.8)
axes.set_xlabel("in the unit on the left, log scale")
axes.grid(axis="x", color="#eeeeee")
axes.set_axisbelow(True)
axes.legend(
    handles=[
        Patch(color="#bdd7e7", label="estimated, low to high"),
        plt.Line2D([], [], color="#08519c", linewidth=2, label="expected"),
        plt.Line2D([], [], color="#d95f0e", marker="o", linestyle="", label="used"),
    ],
    frameon=False,
    ncols=3,
    loc="lower center",
    bbox_to_anchor=(0.5, 1.0),
)
axes.spines[["top", "right", "left"]].set_visible(False)
show(
    figure,
    alt="Estimate against what was used, a bar from low to high per quantity on a log scale.",
)

# %% [markdown]
# *Figure 4. The estimate and what was used. The seconds count from the first attempt to the last,
# with the pause in between. What the killed process used for the lost attempts, nobody noted. Time
# and memory are above what was expected: the tiles take less than a second, and what a process does
# once, before its first tile, is counted with them.*

# %%
# What the attempts say they wrote, beside what lies on the disk.
on_disk = sum(
    (root / name).stat().st_size
    for name in written(root, {one.task for one in attempts})
    if not name.endswith(".json")
)
# Tasks that run in one process share its counters: a lost attempt's shard may be among those of
# the task that ended beside it.
at_most = on_disk + sum(
    (root / name).stat().st_size for name in written(root, interrupted) if "/c/" in name
)
assert on_disk <= round(figures.used.written_mib * 2**20) <= at_most
assert figures.done == figures.tasks == len(tasks)
assert figures.again == len(interrupted)
assert figures.attempts == {"done": len(attempts), "unknown": len(lost)}
assert figures.runners == 2
assert table.used["tasks"] == table.expected["tasks"]
print(f"{on_disk / 2**20:.1f} MiB in the shards of {len(attempts)} tiles")

# %% [markdown]
# ## Tear down

# %%
cluster.close()

# %% [markdown]
# ## Next steps
#
# - `--out s3://bucket/prefix`: the same in a bucket; claims are writes that only one can make.
# - `--shard 3/8`: one of eight array jobs of a batch system; or start the plain command many times.
# - `cropcube job estimate --calibrate 3`: builds three tiles first, so that the estimate rests on
#   this archive and this machine.
# - `cropcube job template --kind CropMap`: a job that maps with the model of notebook 4.
