"""Run a study: every step from the search to the map, each resumable, each with its own output.

The output folder::

    scenes.json plan.json     what was found and what will be read, frozen
    zones.gpkg zones.zarr     study areas and their cube
    labels.zarr split.json    parcels as labels, and who trains, validates and tests
    runs/network runs/xgboost trained models with their scores
    scores/                   the comparison of the models, folds of cross-validation
    map/                      the map of the new area
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd

import cube
import model
from cube.errors import StudyError
from cube.simulate import simulate
from deploy.studyfile import Study, read_study, resolve

logger = logging.getLogger(__name__)

Report = Callable[[int, int, str], None]
Step = Callable[[str], AbstractContextManager[Report]]


@dataclass
class Results:
    """Where the parts of a finished study lie."""

    folder: Path
    comparison: model.Comparison
    map: Any = None
    pictures: list[Path] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def _silent(_title: str) -> Iterator[Report]:
    yield lambda done, total, what: None


def run_study(
    path: str | Path, out: str | Path, *, client: Any = None, step: Step = _silent
) -> Results:
    """Run a study file from start to end; what is finished already is not done again.

    Parameters
    ----------
    path : path
        The study file.
    out : path
        Folder of the results. A study that was interrupted continues in the same folder.
    client : distributed.Client, optional
        Cluster for cubes, boosting and maps; default this process.
    step : callable
        Gives a context with a progress callback for each titled step.

    Raises
    ------
    StudyError
        For a mistake in the file; errors of the steps pass through.
    """
    started = time.monotonic()
    runner = _Runner(Path(path), read_study(path), Path(out), client, step)
    runner.folder.mkdir(parents=True, exist_ok=True)
    runner.freeze_study()
    zones = runner.zones()
    plan = runner.plan(zones)
    runner.build_cube(plan)
    runner.labels(zones, plan)
    split = runner.split()
    runner.train(split)
    comparison = runner.scores(split)
    mapped = runner.map()
    pictures = sorted(runner.folder.rglob("*.png"))
    return Results(runner.folder, comparison, mapped, pictures, time.monotonic() - started)


@dataclass
class _Runner:
    file: Path
    study: Study
    folder: Path
    client: Any
    step: Step

    def freeze_study(self) -> None:
        """Keep the study beside its results; a changed study needs a folder of its own."""
        frozen = self.folder / "study.json"
        text = self.study.model_dump_json(indent=1)
        if frozen.exists() and frozen.read_text(encoding="utf-8") != text:
            raise StudyError(
                f"{self.folder} holds the results of another version of this study; choose "
                "another folder with --out, or delete it"
            )
        frozen.write_text(text, encoding="utf-8")
        if self.study.simulate is not None and not self.archive.joinpath("done").exists():
            with self.step("simulate") as report:
                simulate(self.archive, self.study.simulate.settings, report)
            self.archive.joinpath("done").touch()

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def path(self, value: Any) -> Any:
        archive = self.archive if self.study.simulate is not None else None
        try:
            return resolve(value, self.file, archive)
        except ValueError as error:
            raise StudyError(f"{self.file}: {error}") from error

    def zones(self) -> gpd.GeoDataFrame | None:
        """Return the zones, chosen once and kept; None when an area is studied as a whole."""
        kept = self.folder / "zones.gpkg"
        choice = self.study.zones
        if choice.area is not None:
            return None
        if kept.exists():
            return model.read_zones(kept)
        if choice.file is not None:
            zones = model.read_zones(self.path(choice.file))
        elif (chosen := choice.choose) is not None:
            layout = model.Layout(chosen.count, chosen.size, chosen.gap, chosen.radius)
            with self.step("choose zones"):
                cover = self.path(chosen.worldcover)
                zones = model.choose_zones(cover, chosen.places, layout, seed=self.study.seed)
        zones.to_file(kept, layer="zones")
        return zones

    def area(self, zones: gpd.GeoDataFrame | None) -> Any:
        return self.path(self.study.zones.area) if zones is None else zones

    def plan(self, zones: gpd.GeoDataFrame | None) -> cube.Plan:
        """Search once and freeze what was found."""
        kept = self.folder / "plan.json"
        if kept.exists():
            return cube.load_plan(kept)
        area = self.area(zones)
        with self.step("search") as report:
            provider = self.path(self.study.provider)
            scenes = cube.search(area, self.study.recipe, provider, progress=report)
            scenes.save(self.folder / "scenes.json")
        plan = cube.plan(area, scenes, self.study.recipe)
        plan.save(kept)
        return plan

    def build_cube(self, plan: cube.Plan) -> None:
        with self.step("build cube") as report:
            cube.store.write(plan, self.store, client=self.client, progress=report)

    @property
    def store(self) -> Path:
        return self.folder / "zones.zarr"

    @property
    def label_store(self) -> Path:
        return self.folder / "labels.zarr"

    def labels(self, zones: gpd.GeoDataFrame | None, plan: cube.Plan) -> None:
        if (self.folder / "labels.txt").exists():
            return
        choice = self.study.labels
        known = model.load_legend(choice.legend.name, choice.legend.level, choice.legend.year)
        with self.step("label") as report:
            parcels = model.read_parcels(self.path(choice.parcels), self.area(zones), known)
            legend = known.compact(parcels, choice.legend.min_parcels)
            told = model.write_labels(
                parcels,
                plan,
                legend,
                zones,
                self.label_store,
                erosion=choice.erosion,
                background=choice.background,
                progress=report,
            )
        (self.folder / "labels.txt").write_text(f"{told}\n", encoding="utf-8")

    def split(self) -> model.Split:
        choice = self.study.split
        if choice.by == "zone":
            split = model.split_zones(self.label_store, seed=self.study.seed)
        else:
            split = model.split_parcels(
                self.label_store, buffer=choice.buffer, seed=self.study.seed
            )
        split.save(self.folder / "split.json")
        return split

    def data(self, split: model.Split) -> model.TileData:
        network = self.study.network
        return model.TileData(
            self.store,
            self.label_store,
            None,
            split,
            sample=network.sample,
            batch_size=network.batch_size,
            seed=self.study.seed,
            augment=network.augment,
        )

    def train_network(self, data: model.TileData, out: Path, report: Report | None = None) -> Any:
        network = self.study.network
        options: dict[str, Any] = network.options
        return model.train(
            network.name,
            data,
            out,
            preset=network.preset,
            epochs=network.epochs,
            lr=network.lr,
            patience=network.patience,
            class_weights=network.class_weights,
            loss=network.loss,
            levels=network.levels,
            seed=self.study.seed,
            progress=report,
            **options,
        )

    def train_trees(self, data: model.TileData, out: Path, report: Report | None = None) -> Any:
        trees = self.study.boost.model_dump()
        return model.boost(
            data, out, client=self.client, seed=self.study.seed, progress=report, **trees
        )

    def trainers(self) -> dict[str, Callable[..., Any]]:
        return {"xgboost": self.train_trees, self.study.network.name: self.train_network}

    def train(self, split: model.Split) -> None:
        for name, train in self.trainers().items():
            with self.step(f"train {name}") as report:
                train(self.data(split), self.folder / "runs" / name, report)

    def scores(self, split: model.Split) -> model.Comparison:
        found = {}
        for name in self.trainers():
            with self.step(f"score {name}") as report:
                folder = self.folder / "runs" / name
                out = self.folder / "scores" / name
                found[name] = model.evaluate(folder, self.data(split), out=out, progress=report)
        comparison = model.compare(found)
        comparison.save(self.folder / "scores")
        if self.study.split.folds:
            self.cross_validate(split)
        return comparison

    def cross_validate(self, split: model.Split) -> None:
        for name, train in self.trainers().items():
            with self.step(f"folds of {name}") as report:
                out = self.folder / "scores" / f"{name}-folds"
                folds = self.study.split.folds
                model.cross_validate(train, self.data(split), out, folds, progress=report)

    def map(self) -> Any:
        new = self.study.map
        if new is None:
            return None
        with self.step("map new area") as report:
            return model.predict(
                self.folder / "runs" / self.study.network.name,
                self.path(new.area),
                self.folder / "map",
                provider=self.path(self.study.provider),
                year=new.year,
                client=self.client,
                progress=report,
            )
