"""Scenes as lazy cubes through both loaders, against the build and against plain look-ups."""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path

import dask
import numpy as np
import pyproj
import pytest
import rasterio
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr

import cube
from cube.build import build
from cube.composite import fill_gaps, mask_scl, monthly_median
from cube.errors import CropcubeError, PlanError, ReadError, RecipeError, SceneError
from cube.grid import NativeGrid, Window
from cube.load import load
from cube.planning import plan
from cube.recipe import Mask, Recipe
from cube.scenes import Scene
from tests.archive import GRID, Archive, write_archive
from tests.cube.test_build import DATES, YEAR, bbox_of, whole
from tests.range_server import serve

BANDS = ("blue", "swir16", "coastal")
LOADERS = pytest.mark.parametrize("loader", ["odc", "stackstac"])


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    """Six scenes of 10, 20 and 60 m, two of them with ESA's offset left in."""
    folder = tmp_path_factory.mktemp("archive")
    return write_archive(folder, DATES, BANDS, subtract=(0, 1000, 0, 1000, 0, 0))


def harmonised(archive: Archive) -> np.ndarray:
    floored = np.maximum(archive.dn, archive.subtract + 1) - archive.subtract
    return floored.where(archive.dn > 0, 0).transpose(*archive.dn.dims).values


def monthly(scenes: xr.Dataset, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    mask = recipe.mask
    clear = mask_scl(
        scenes.reflectance, scenes.scl, mask.keep, erode=mask.erode, dilate=mask.dilate
    )
    made = monthly_median(clear, recipe.periods)
    filled = fill_gaps(made.reflectance, recipe.fill)
    with dask.config.set(scheduler="threads", num_workers=2):
        reflectance, observations = dask.compute(filled, made.observations)
    return reflectance.values, observations.values


def assert_build_is_the_functions(planned, scenes, recipe, **how) -> None:
    built = build(plan(planned, scenes, recipe)).compute(scheduler="threads")
    loaded = load(scenes, recipe.bands, **how)
    reflectance, observations = monthly(loaded, recipe)
    assert np.array_equal(observations, built.observations)
    assert np.array_equal(reflectance, built.reflectance)
    assert np.array_equal(loaded.x, built.x)
    assert np.array_equal(loaded.y, built.y)
    assert built.observations.any()


@LOADERS
def test_layers_are_the_files_pixels_harmonised_and_replicated(archive, loader):
    ds = load(archive.scenes, BANDS, loader=loader, chunks=200).compute()
    assert (ds.reflectance.dims, ds.reflectance.dtype) == (("time", "band", "y", "x"), np.uint16)
    assert (ds.scl.dims, ds.scl.dtype) == (("time", "y", "x"), np.uint8)
    assert np.array_equal(ds.reflectance, harmonised(archive))
    assert np.array_equal(ds.scl, archive.scl)
    assert np.array_equal(ds.time, archive.dn.time)
    assert list(ds.id.values) == [scene.id for scene in archive.scenes]
    assert ds.rio.transform() == GRID.transform
    assert ds.rio.crs.to_epsg() == GRID.epsg


@LOADERS
def test_functions_on_the_native_grid_give_the_build(archive, loader):
    assert_build_is_the_functions(
        whole(GRID), archive.scenes, Recipe(bands=BANDS, **YEAR), loader=loader, chunks=200
    )


@LOADERS
def test_masks_that_shrink_and_grow_are_those_of_the_build(archive, loader):
    mask = Mask(erode=20, dilate=60)
    recipe = Recipe(bands=BANDS, mask=mask, **YEAR)
    assert_build_is_the_functions(whole(GRID), archive.scenes, recipe, loader=loader, chunks=200)


def test_masks_grow_on_native_pixels_only(archive):
    ds = load(archive.scenes, BANDS, resolution=30, crs=GRID.epsg)
    with pytest.raises(RecipeError, match="30 m"):
        mask_scl(ds.reflectance, ds.scl, dilate=60)


@LOADERS
def test_an_area_is_the_builds_window(archive, loader):
    area = bbox_of(GRID, Window(row=31, col=45, height=50, width=77))
    recipe = Recipe(bands=("swir16", "blue"), **YEAR)
    assert_build_is_the_functions(area, archive.scenes, recipe, loader=loader, area=area)


@LOADERS
def test_nothing_is_opened_before_it_is_computed(archive, loader, tmp_path):
    gone = write_archive(tmp_path, DATES[:1])
    path = Path(gone.scenes.scenes[0].hrefs["nir"])
    path.unlink()
    ds = load(gone.scenes, ("blue", "nir"), loader=loader)
    ds.reflectance.sel(band="blue").compute()
    with pytest.raises(ReadError, match="S2A_31TEJ_000, nir .*[Nn]o such file") as failure:
        ds.compute()
    assert (failure.value.item, failure.value.asset) == ("S2A_31TEJ_000", "nir")
    assert failure.value.kind == "missing"


@LOADERS
def test_a_task_can_travel(archive, loader):
    ds = load(archive.scenes, ("blue",), loader=loader)
    again = pickle.loads(pickle.dumps(ds))  # noqa: S301 - our own
    assert np.array_equal(again.reflectance[0, 0].compute(), harmonised(archive)[0, 0])


# --- what a loader may open --------------------------------------------------------------------


@LOADERS
def test_hrefs_are_checked_before_gdal_sees_them(archive, loader, tmp_path):
    outside = tmp_path / "secret.tif"
    outside.write_bytes(Path(archive.scenes.scenes[0].hrefs["blue"]).read_bytes())
    scene = archive.scenes.scenes[0]
    for href, said in (
        (str(outside), "leaves the folder"),
        (f"vrt://{outside}", "not allowed"),
        ("/vsicurl/http://127.0.0.1/a.tif", "virtual file"),
        ("http://127.0.0.1/a.tif", "not allowed"),
    ):
        hostile = scene.model_copy(update={"hrefs": scene.hrefs | {"blue": href}})
        with pytest.raises(SceneError, match=said):
            load([hostile], ("blue",), loader=loader).compute()


@LOADERS
def test_a_virtual_raster_in_a_tifs_clothes_is_not_opened(archive, loader, tmp_path):
    copy = write_archive(tmp_path, DATES[:1], ("blue",))
    path = Path(copy.scenes.scenes[0].hrefs["blue"])
    inside = archive.scenes.scenes[0].hrefs["blue"]
    path.write_text(
        f'<VRTDataset rasterXSize="{GRID.width}" rasterYSize="{GRID.height}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>{GRID.left}, 10, 0, {GRID.top}, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>'
        f"{inside}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        "</VRTDataset>"
    )
    with rasterio.open(path) as trap:
        assert trap.read(1).any()  # GDAL itself would follow it
    with pytest.raises(ReadError, match="not recognized"):
        load(copy.scenes, ("blue",), loader=loader).compute()


def over_http(archive: Archive, origin: str, query: str = "") -> list[Scene]:
    folder = archive.scenes.source
    provider = f"earth-search@{origin}"
    return [
        scene.model_copy(
            update={
                "provider": provider,
                "hrefs": {
                    band: href.replace(folder, origin) + query for band, href in scene.hrefs.items()
                },
            }
        )
        for scene in archive.scenes
    ]


@LOADERS
def test_a_server_that_fails_now_and_then_is_asked_again(archive, loader):
    def once(path, nth):
        return "503" if nth == 1 and path.endswith("blue.tif") else ""

    with serve(Path(archive.scenes.source), once) as server:
        ds = load(over_http(archive, server.origin), BANDS, loader=loader, chunks=400)
        read = ds.reflectance[:2, :2].compute()
        assert np.array_equal(read, harmonised(archive)[:2, :2])
        assert server.given["503"] == 2


@LOADERS
def test_redirects_are_not_followed(archive, loader):
    with serve(Path(archive.scenes.source)) as inside:
        asked = f"redirect {inside.origin}/secret.tif"
        with serve(Path(archive.scenes.source), lambda path, nth: asked) as server:
            ds = load(over_http(archive, server.origin), ("blue",), loader=loader)
            with pytest.raises(ReadError, match="redirect") as failure:
                ds.reflectance[0, 0].compute()
            assert failure.value.kind == "refused"
        assert not inside.given


@LOADERS
def test_failures_over_http_name_the_asset_and_keep_the_secret(archive, loader, caplog):
    with serve(Path(archive.scenes.source), lambda path, nth: "404") as server:
        scenes = over_http(archive, server.origin, "?sig=topsecret")
        with pytest.raises(ReadError, match=r"S2A_31TEJ_000, blue .*404") as failure:
            load(scenes, ("blue",), loader=loader).reflectance[0, 0].compute()
    assert failure.value.kind == "missing"
    shown = "".join(traceback.format_exception(failure.value))
    assert "topsecret" not in shown + caplog.text


# --- other grids -------------------------------------------------------------------------------


def looked_up(values: np.ndarray, pixel: int, ds: xr.Dataset, names=("y", "x")) -> np.ndarray:
    """The source pixel in which each centre of the target lies; 0 outside."""
    y, x = np.meshgrid(ds[names[0]].values, ds[names[1]].values, indexing="ij")
    to_source = pyproj.Transformer.from_crs(ds.rio.crs, GRID.epsg, always_xy=True)
    east, north = to_source.transform(x, y)
    row = np.floor((GRID.top - north) / pixel).astype(int)
    col = np.floor((east - GRID.left) / pixel).astype(int)
    inside = (row >= 0) & (col >= 0) & (row < values.shape[0]) & (col < values.shape[1])
    return np.where(inside, values[row.clip(0, len(values) - 1), col.clip(0, 231)], 0)


@LOADERS
@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ({"crs": "EPSG:3035"}, ("y", "x")),
        ({"crs": 4326, "resolution": 1e-4}, ("latitude", "longitude")),
        ({"resolution": 30}, ("y", "x")),
    ],
)
def test_other_grids_take_the_nearest_pixel(archive, loader, grid, names):
    one = archive.scenes.scenes[1:2]
    ds = load(one, ("blue",), loader=loader, **grid).compute()
    expected = looked_up(harmonised(archive)[1, 0], 10, ds, names)
    # GDAL's transformer is exact to an eighth of a pixel only.
    assert (ds.reflectance.values[0, 0] == expected).mean() > 0.96
    classes = looked_up(archive.scl.values[1], 10, ds, names)
    assert (ds.scl.values[0] == classes).mean() > 0.96
    assert expected.any()
    assert set(np.unique(ds.scl)) <= set(np.unique(archive.scl))


def test_both_loaders_agree_on_other_grids(archive):
    for grid in ({"crs": 3035}, {"crs": 4326, "resolution": 2e-4}, {"crs": 2154, "resolution": 25}):
        first, second = (
            load(archive.scenes.scenes[1:2], BANDS, loader=loader, **grid).compute()
            for loader in ("odc", "stackstac")
        )
        xr.testing.assert_identical(first, second)


def flat(tmp_path: Path, *, tagged: bool) -> Archive:
    """One scene of reflectance 5000 with holes of 0, said to be no data or not."""
    made = write_archive(tmp_path, DATES[:1], ("blue",))
    for href in made.scenes.scenes[0].hrefs.values():
        with rasterio.open(href, "r+") as file:
            file.write(np.where(file.read(1) > 0, 5000 if "blue" in href else 4, 0), 1)
            if not tagged:
                file.nodata = None
    return made


@pytest.mark.parametrize(("loader", "tagged"), [("odc", True), ("odc", False), ("stackstac", True)])
def test_no_data_is_never_mixed_into_its_neighbours(tmp_path, loader, tagged):
    made = flat(tmp_path, tagged=tagged)
    ds = load(made.scenes, ("blue",), loader=loader, crs=2154, resampling="bilinear").compute()
    assert set(np.unique(ds.reflectance)) == {0, 5000}
    assert set(np.unique(ds.scl)) == {0, 4}


def test_stackstac_refuses_to_mix_what_does_not_say_its_no_data(tmp_path):
    made = flat(tmp_path, tagged=False)
    ds = load(made.scenes, ("blue",), loader="stackstac", crs=2154, resampling="bilinear")
    with pytest.raises(ReadError, match="S2A_31TEJ_000, blue .*use loader='odc'"):
        ds.compute()
    nearest = load(made.scenes, ("blue",), loader="stackstac", crs=2154).compute()
    assert set(np.unique(nearest.reflectance)) == {0, 5000}


# --- several granules, parts of a pass ---------------------------------------------------------


@LOADERS
def test_granules_of_a_zone_share_one_lattice(tmp_path, loader):
    east = GRID.model_copy(update={"granule": "31TFJ", "left": GRID.left + 1000})
    first = write_archive(tmp_path / "west", DATES[:1], ("blue",))
    second = write_archive(tmp_path / "east", DATES[1:2], ("blue",), grid=east, seed=5)
    scenes = [*first.scenes, *second.scenes]
    ds = load(scenes, ("blue",), loader=loader).compute()
    assert dict(ds.sizes) == {"time": 2, "band": 1, "y": GRID.height, "x": GRID.width + 100}
    assert np.array_equal(ds.reflectance[0, 0, :, :232], first.dn[0, 0])
    assert np.array_equal(ds.reflectance[1, 0, :, 100:], second.dn[0, 0])
    assert not ds.reflectance[0, 0, :, 232:].any()


def test_parts_of_one_pass_are_one_observation(tmp_path):
    made = write_archive(tmp_path, ["2023-01-05", "2023-01-05"], ("blue",))
    parts = [scene.model_copy(update={"acquisition": "pass"}) for scene in made.scenes]
    ds = load(parts, ("blue",)).compute()
    clear = ds.scl.isin([4, 5, 6, 7])
    assert int(clear.sum("time").max()) == 1
    assert np.array_equal(clear.any("time"), made.scl.isin([4, 5, 6, 7]).any("time"))
    assert np.array_equal(ds.scl[0], made.scl[0])
    recipe = Recipe(bands=("blue",), start="2023-01", end="2023-01")
    built = build(plan(whole(GRID), made.scenes.model_copy(update={"scenes": parts}), recipe))
    reflectance, observations = monthly(load(parts, ("blue",)), recipe)
    assert np.array_equal(observations, built.observations)
    assert np.array_equal(reflectance, built.reflectance)


# --- mistakes ----------------------------------------------------------------------------------


def test_mistakes_say_what_to_do(archive):
    scene = archive.scenes.scenes[0]
    far = NativeGrid(
        granule="32TLP", epsg=32632, left=300_000.0, top=4_832_780.0, height=20, width=20
    )
    open_question = scene.model_copy(update={"subtract": None, "decided": None, "why": "flag"})
    for scenes, how, said in (
        ([], {}, "no scenes"),
        ([scene], {"bands": ("red",)}, "no asset for red .*search with these bands"),
        ([scene], {"bands": "blue"}, "must be a list"),
        ([open_question], {}, "not decided .flag.; plan first"),
        ([scene], {"loader": "gdal"}, "choose odc or stackstac"),
        ([scene], {"resampling": "cubic"}, "choose nearest or bilinear"),
        ([scene, scene.model_copy(update={"grid": far})], {}, "several UTM zones .*give crs"),
        ([scene], {"area": (10, 50, 10.1, 50.1)}, "no scene covers the area"),
        ([scene], {"area": (10, 50, 10.1, 50.1), "crs": 3035}, "no scene covers the area"),
        ([scene], {"crs": 4326}, "counts in degrees: give resolution"),
        ([scene], {"crs": "EPSG:1"}, "not a CRS"),
        ([scene], {"crs": "+proj=laea +lat_0=50 +lon_0=3"}, "no EPSG code"),
    ):
        with pytest.raises(PlanError, match=said):
            load(scenes, **{"bands": ("blue",)} | how)


def test_granules_off_the_lattice_are_not_shifted(archive):
    scene = archive.scenes.scenes[0]
    off = GRID.model_copy(update={"granule": "31TFJ", "left": GRID.left + 5})
    with pytest.raises(PlanError, match="do not share a 10 m lattice"):
        load([scene, scene.model_copy(update={"grid": off})], ("blue",))


def test_missing_libraries_are_named_with_the_remedy(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "stackstac", None)
    monkeypatch.delitem(sys.modules, "cube.loaders")
    monkeypatch.delattr(cube, "loaders")
    with pytest.raises(CropcubeError, match=r"stackstac.*pip install 'cropcube\[explore\]'"):
        load(archive.scenes, ("blue",))


# --- real scenes -------------------------------------------------------------------------------


@pytest.mark.real
@LOADERS
@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("beziers-2018", {"start": "2018-01", "end": "2018-12"}),
        ("flanders-2019", {"start": "2018-12", "end": "2019-03"}),
    ],
)
def test_real_scenes_give_the_build(real_data, loader, name, period):
    recipe = Recipe(bands=("red", "nir", "swir16"), **period)
    scenes = cube.search(
        (-5.0, 40.0, 9.0, 52.0), recipe, provider=real_data / "archive" / name / "items.json"
    )
    area = whole(next(iter(scenes)).grid)
    assert_build_is_the_functions(area, scenes, recipe, loader=loader)
