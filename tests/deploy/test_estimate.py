"""Estimates against what builds really ask for, and against figures worked out by hand."""

from __future__ import annotations

import socket
import time

import pytest

import cube
from benchmarks.plan import YEAR, france, granules, scenes_of
from cube.errors import BudgetError, PlanError
from cube.grid import TILE, Window, whole_granule
from cube.planning import GridPlan, Plan, Tile
from deploy.jobs.bands import Band, exactly
from deploy.jobs.calibration import MeasuredTask, calibrate, calibration_tiles
from deploy.jobs.estimate import compare, estimate
from deploy.jobs.prices import GIB, PriceTable, Use, check_budget, read_prices
from deploy.jobs.workload import Assumptions, load
from tests.cube.test_build import whole

PRICES = PriceTable(currency="EUR", core_hour=0.05, gib_read=0.01, thousand_requests=0.0004)


@pytest.fixture(scope="module")
def country() -> Plan:
    area = france()
    return cube.plan(area, scenes_of(granules(area)), YEAR)


def plan_of(windows: list[Window], bands: tuple[str, ...] = ("blue", "green")) -> Plan:
    """Tiles of one granule with the 73 passes of a year."""
    grid = whole_granule("31TEJ")
    recipe = cube.Recipe(bands=bands, start="2023-01", end="2023-12")
    scenes = scenes_of([grid]).scenes
    tiles = [Tile(row=w.row // TILE, col=w.col // TILE, window=w) for w in windows]
    made = GridPlan(recipe=recipe, grid=grid, scenes=scenes, tiles=tuple(tiles))
    return Plan(area={}, recipe=recipe, source="simulated", grids=(made,))


def one_tile(**place: int) -> Plan:
    return plan_of([Window(**({"row": 0, "col": 0, "height": TILE, "width": TILE} | place))])


def used(**facts: float) -> Use:
    nothing = dict.fromkeys(Use.__dataclass_fields__, 0)
    return Use(**(nothing | facts))


def test_a_country_is_estimated_in_seconds_and_without_a_connection(country, monkeypatch):
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("an estimate opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    begun = time.process_time()
    found = estimate(country, concurrency=64, prices=PRICES)
    # The promise is ten seconds; CPU time, so that other work on the machine does not count.
    assert time.process_time() - begun < 10
    assert found.tasks == country.n_tiles > 5000
    assert found.scenes == 9344
    # 550 000 km² are 5.5e9 pixels of four bands, 73 to 146 times; published files of Collection 1
    # have at most 2.1 bytes a pixel.
    assert 5.5e9 * 4 * 73 * 0.6 * 0.65 < found.gib_read.mid * GIB < 5.5e9 * 4 * 146 * 2.1 * 1.6
    assert found.hours.mid == pytest.approx(found.core_hours.mid / 64)
    for band in (found.requests, found.gib_read, found.core_hours, found.hours, found.price):
        assert 0 < band.low < band.mid < band.high
    assert 0.4 < found.peak_gib.mid < 2  # workers of 2 GB hold a tile of a year


def test_a_tile_of_whole_blocks_is_counted_by_hand():
    (grid,) = one_tile().grids
    sure = Assumptions(
        bytes_per_pixel=exactly(1.5),
        scl_bytes_per_pixel=exactly(0.1),
        contributing=exactly(0.5),
        pixels_per_second=exactly(1e6),
        stored_share=exactly(0.5),
    )
    found = load(grid, grid.tiles[0], sure, exactly(0.0))
    # One block of 1024 pixels of the classification, of which 512 are needed; one of each band.
    assert found.requests.mid == 73 * 1 + 36.5 * 2
    assert found.read.mid == pytest.approx(73 * 1024**2 * 0.1 + 36.5 * 2 * 1024**2 * 1.5)
    assert found.core_seconds.mid == pytest.approx((73 + 36.5 * 2) * 1024**2 / 1e6)
    assert found.written.mid == 0.5 * 12 * 1024**2 * (2 * 2 + 1)
    # Blocks of 512: one of the classification, four of each band.
    assert found.requests.high == 73 * 1 + 36.5 * 2 * 4
    headers = load(grid, grid.tiles[0], sure, exactly(1.0))
    assert headers.requests.mid - found.requests.mid == 73 + 36.5 * 2
    assert headers.read.mid - found.read.mid == (73 + 36.5 * 2) * 32768


def test_a_corner_of_a_block_costs_the_block_and_the_grid_ends_where_it_ends():
    corner, full = one_tile(height=100, width=100), one_tile()
    ours, theirs = (estimate(plan, concurrency=1) for plan in (corner, full))
    assert ours.gib_read.mid == theirs.gib_read.mid
    # With blocks of 512 pixels it costs one of four.
    assert ours.gib_read.low < theirs.gib_read.low / 2
    assert ours.gib_written.mid / theirs.gib_written.mid == pytest.approx((100 / 1024) ** 2)
    # A whole granule ends 740 pixels into its eleventh block.
    last = one_tile(row=10240, height=740)
    (grid,), sure = last.grids, Assumptions(scl_bytes_per_pixel=exactly(0.0))
    found, whole_block = (
        load(g, g.tiles[0], sure, exactly(0.0)).read.mid for g in (grid, full.grids[0])
    )
    assert found / whole_block == pytest.approx(740 / 1024)


def test_bands_of_20_m_cost_a_block_of_four_tiles():
    fine, coarse = (
        plan_of([Window(row=0, col=0, height=TILE, width=TILE)], bands)
        for bands in (("blue",), ("swir16",))
    )
    assert estimate(fine, concurrency=1).gib_read.mid == pytest.approx(
        estimate(coarse, concurrency=1).gib_read.mid
    )
    # With blocks of 512 pixels a quarter is read.
    assert estimate(coarse, concurrency=1).gib_read.low < estimate(fine, concurrency=1).gib_read.low


def test_hours_follow_the_number_of_tasks_at_a_time_and_end_with_the_longest():
    windows = [Window(row=r * TILE, col=0, height=TILE, width=TILE) for r in range(8)]
    plan = plan_of(windows)
    alone, four, many = (estimate(plan, concurrency=n) for n in (1, 4, 100))
    assert alone.hours.high == pytest.approx(alone.core_hours.high)
    assert four.hours.mid == pytest.approx(four.core_hours.mid / 4)
    # More workers than tasks help nothing: each of the eight takes as long as it takes.
    assert many.hours.mid == pytest.approx(many.core_hours.mid / 8)
    assert many.hours.high < 2 * many.core_hours.high / 8
    with pytest.raises(PlanError, match="at least one task"):
        estimate(plan, concurrency=0)


def test_requests_and_bytes_of_a_real_build_lie_in_the_span(real_data, monkeypatch):
    from cube.ranges import Source
    from tests.cube.test_real_archives import scenes_of as real_scenes

    asked: list[int] = []
    read_into = Source.read_into

    def counting(self: Source, start: int, buffer: memoryview) -> int:
        got = read_into(self, start, buffer)
        asked.append(got)
        return got

    monkeypatch.setattr(Source, "read_into", counting)
    recipe = cube.Recipe(bands=("red", "nir"), start="2018-01", end="2018-12")
    _, scenes = real_scenes(real_data / "archive" / "beziers-2018", recipe)
    plan = cube.plan(whole(next(iter(scenes)).grid), scenes, recipe)
    cube.read._layout.cache_clear()
    cube.build(plan).compute(scheduler="threads")
    found = estimate(plan, concurrency=1)
    # The archive's blocks of 512 hold the whole of its 232 × 353 pixels.
    assert found.requests.low <= len(asked) <= found.requests.high
    assert found.gib_read.low <= sum(asked) / GIB <= found.gib_read.high


def test_the_price_is_the_sum_of_its_parts():
    prices = PriceTable(
        currency="EUR",
        core_hour=2,
        memory_gib_hour=3,
        thousand_requests=1000,
        gib_read=5,
        gib_written=7,
    )
    use = used(
        core_seconds=3600,
        peak_bytes=2 * GIB,
        requests=11,
        bytes_read=13 * GIB,
        bytes_written=17 * GIB,
    )
    assert prices.cost_of(use) == pytest.approx(2 + 2 * 3 + 11 + 65 + 119)
    plan = one_tile()
    assert estimate(plan, concurrency=1).price is None
    free = estimate(plan, concurrency=1, prices=PriceTable(currency="EUR")).price
    assert free == exactly(0.0)


def test_a_budget_stops_what_may_cost_more():
    found = estimate(one_tile(), concurrency=1, prices=PriceTable(currency="EUR", core_hour=1000))
    assert found.price is not None
    check_budget(found.price, found.price.high)
    between = (found.price.mid + found.price.high) / 2
    with pytest.raises(BudgetError, match=r"may cost .* EUR \(likely .*budget is"):
        check_budget(found.price, between, "EUR")
    check_budget(10.0, 10.0)
    with pytest.raises(BudgetError, match="are spent"):
        check_budget(10.01, 10.0)
    with pytest.raises(BudgetError, match="price table"):
        check_budget(None, 10.0)


def test_price_files_are_checked(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("currency: EUR\ncore_hour: 0.04\n")
    assert read_prices(path) == PriceTable(currency="EUR", core_hour=0.04)
    for text, words in (
        ("currency: EUR\ncore_hours: 1\n", "line 2: unknown key 'core_hours'.*'core_hour'"),
        ("currency: EUR\ncore_hour: -1\n", "line 2: core_hour"),
        ("currency: EUR\ngib_read: .inf\n", "line 2: gib_read"),
        ("core_hour: 1\n", "currency"),
    ):
        path.write_text(text)
        with pytest.raises(BudgetError, match=words):
            read_prices(path)


def measure(plan: Plan, factor: float) -> list[MeasuredTask]:
    """Tasks that took `factor` times what is expected of them."""
    found = []
    for n, (grid, tile) in enumerate(calibration_tiles(plan)):
        expected = load(grid, tile, Assumptions(), exactly(float(n == 0)))
        use = used(
            tasks=1,
            requests=factor * expected.requests.mid,
            bytes_read=factor * expected.read.mid,
            bytes_written=factor * expected.written.mid,
            core_seconds=factor * expected.core_seconds.mid,
            peak_bytes=GIB,
        )
        found.append(MeasuredTask(grid.grid.granule, tile.row, tile.col, use))
    return found


def test_a_calibration_puts_measured_figures_in_the_place_of_assumed_ones():
    windows = [Window(row=r * TILE, col=0, height=TILE, width=TILE) for r in range(8)]
    plan = plan_of(windows)
    before = estimate(plan, concurrency=2)
    same, twice = (
        estimate(plan, concurrency=2, observed=calibrate(plan, measure(plan, factor)))
        for factor in (1.0, 2.0)
    )
    assert same.gib_read.mid == pytest.approx(before.gib_read.mid)
    assert same.gib_read.high == pytest.approx(same.gib_read.low)  # all three tasks agreed
    for name in ("requests", "gib_read", "gib_written", "core_hours"):
        assert getattr(twice, name).mid == pytest.approx(2 * getattr(before, name).mid)
    assert twice.peak_gib.mid == pytest.approx(1.0)
    assert "measured" in twice.assumptions[0]
    mixed = calibrate(plan, measure(plan, 1.0)[:2] + measure(plan, 3.0)[2:])
    assert mixed.core_seconds.low == pytest.approx(1)
    assert mixed.core_seconds.high == pytest.approx(3)
    assert 1 < mixed.core_seconds.mid < 3
    with pytest.raises(PlanError, match="nothing was measured"):
        calibrate(plan, [])
    with pytest.raises(PlanError, match="31TEJ-9-9 was measured but is not in the plan"):
        calibrate(plan, [MeasuredTask("31TEJ", 9, 9, used())])


def test_tiles_to_measure_are_spread_over_the_work(country):
    chosen = calibration_tiles(country)
    assert len(chosen) == 3
    assert len({grid.grid.granule for grid, _ in chosen}) == 3
    assert chosen == calibration_tiles(country)
    assert len(calibration_tiles(one_tile(), 3)) == 1


def test_what_was_used_stands_beside_the_estimate():
    plan = one_tile()
    found = estimate(plan, concurrency=1, prices=PRICES)
    use = used(tasks=1, requests=100, bytes_read=GIB, core_seconds=7200, hours=2)
    table = compare(found, use, PRICES)
    assert table.loc["tasks", ["expected", "used"]].tolist() == [1, 1]
    assert table.loc["core-hours", "used"] == 2
    assert table.loc["GiB read", "used/expected"] == pytest.approx(1 / found.gib_read.mid)
    assert table.loc["price", "used"] == pytest.approx(2 * 0.05 + 0.01 + 0.1 * 0.0004)
    assert not table.isna().to_numpy().any()
    assert "core-hours" in found.text
    assert "assumed: " in found.text


def test_a_provider_with_published_limits_sets_the_pace():
    free = one_tile()
    (grid,) = free.grids
    scenes = tuple(
        scene.model_copy(
            update={
                "provider": "cdse",
                "hrefs": {band: f"s3://eodata/{band}.jp2" for band in scene.hrefs},
            }
        )
        for scene in grid.scenes
    )
    bound = free.model_copy(update={"grids": (grid.model_copy(update={"scenes": scenes}),)})
    ours, theirs = (estimate(plan, concurrency=500) for plan in (free, bound))
    assert theirs.hours.mid >= 0.999 * theirs.requests.mid / 2000 / 60
    assert theirs.hours.mid >= 0.999 * theirs.gib_read.mid * GIB / 80e6 / 3600
    assert theirs.hours.mid >= ours.hours.mid
    assert any("JPEG 2000" in text for text in theirs.warnings)
    assert ours.warnings == ()


def test_figures_that_are_high_together_stay_ordered():
    one, other = Band(1, 2, 3), Band(2, 2, 5)
    assert one + other == Band(3, 4, 8)
    assert one * other == Band(2, 4, 15)
    assert one.no_less_than(exactly(2)) == Band(2, 2, 3)
