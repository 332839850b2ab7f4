"""Settle scenes whose catalogue does not say whether ESA's offset is in their pixels.

By hand, or by looking: classification and two bands of parts of the area are read until
`cube.pixeltest` has a verdict. Scenes that are decided cost nothing.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cube.errors import PlanError, SceneError
from cube.grid import NativeGrid, Window
from cube.offset import BOA_OFFSET
from cube.pixeltest import BANDS_BY_DARKNESS, DARK_CLASSES, ENOUGH, Evidence, gather, verdict
from cube.read import read_window
from cube.scenes import Removed, Scene

logger = logging.getLogger(__name__)

#: Scenes looked at together: reading waits for the network, not for this machine.
SCENES_AT_ONCE = 8
#: Windows whose bands are read before a scene counts as undecidable.
LOOKS = 8
#: Fewer dark pixels than this in a window are not worth reading its bands.
_WORTH_A_LOOK = ENOUGH // LOOKS


def state_by_hand(scenes: Sequence[Scene], offsets: Mapping[str, int]) -> list[Scene]:
    """Return the scenes with what the user states, which overrides catalogue and pixels.

    Parameters
    ----------
    scenes : sequence of Scene
        Decided or not.
    offsets : mapping of str to int
        Item id → DN to subtract, 0 or 1000.

    Raises
    ------
    PlanError
        For another value, or an id that is not among the scenes.
    """
    known = {scene.id for scene in scenes}
    for name, value in offsets.items():
        if isinstance(value, bool) or value not in (0, BOA_OFFSET):
            raise PlanError(f"offsets: {name}: {value!r} is neither 0 nor {BOA_OFFSET}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "take its id from the search"
            raise PlanError(f"offsets: no scene '{name}'; {hint}")
    return [
        _decided(scene, offsets[scene.id], "hand", scene.why) if scene.id in offsets else scene
        for scene in scenes
    ]


def settle(
    scenes: Mapping[NativeGrid, Sequence[Scene]],
    windows: Mapping[NativeGrid, Sequence[Window]],
    keep: Sequence[int],
) -> tuple[dict[NativeGrid, list[Scene]], list[Removed]]:
    """Decide the undecided scenes by their pixels.

    Parameters
    ----------
    scenes : mapping of NativeGrid to sequence of Scene
        Scenes of each grid.
    windows : mapping of NativeGrid to sequence of Window
        The parts of each grid that will be built, in pixels of 10 m.
    keep : sequence of int
        Classes of the scene classification that count as clear.

    Returns
    -------
    scenes : dict of NativeGrid to list of Scene
        In the order given, all decided.
    removed : list of Removed
        Scenes with nothing clear in the area, with reason ``nothing-clear``.

    Raises
    ------
    SceneError
        If clear pixels of a scene do not tell; names the scenes, the facts and the remedies.
    ReadError
        If pixels cannot be read.
    """
    undecided = [scene for some in scenes.values() for scene in some if scene.subtract is None]
    if not undecided:
        return {grid: list(some) for grid, some in scenes.items()}, []
    logger.info("looking at the pixels of %d scenes for ESA's offset", len(undecided))
    places = {grid: _spread(parts) for grid, parts in windows.items()}
    with ThreadPoolExecutor(SCENES_AT_ONCE) as pool:
        found = pool.map(lambda scene: _look(scene, places[scene.grid], keep), undecided)
        answers = dict(zip((scene.id for scene in undecided), found, strict=True))
    stuck = [answer for answer in answers.values() if isinstance(answer, str)]
    if stuck:
        raise SceneError(_undecidable(stuck))
    settled: dict[NativeGrid, list[Scene]] = {}
    for grid, some in scenes.items():
        decided = (answers.get(scene.id, scene) for scene in some)
        settled[grid] = [answer for answer in decided if isinstance(answer, Scene)]
    return settled, [answer for answer in answers.values() if isinstance(answer, Removed)]


def _look(scene: Scene, windows: Sequence[Window], keep: Sequence[int]) -> Scene | Removed | str:
    """Return the scene decided, removed, or in words why it cannot be decided."""
    bands = [band for band in BANDS_BY_DARKNESS if band in scene.hrefs][:2]
    samples: list[np.ndarray] = []
    evidence, clear = Evidence(dark=0, bands={}, underflow=0), 0
    for window in windows:
        scl = _read(scene, "scl", window, np.uint8)
        clear += int(np.isin(scl, keep).sum())
        if np.isin(scl, DARK_CLASSES).sum() < _WORTH_A_LOOK:
            continue
        layers = [_read(scene, band, window, np.uint16) for band in bands]
        samples.append(np.stack([scl, *layers]).reshape(len(bands) + 1, -1))
        classes, *values = np.concatenate(samples, axis=1)
        evidence = gather(classes, dict(zip(bands, values, strict=True)))
        subtract = verdict(evidence)
        if subtract is not None:
            logger.info("%s: %d DN to subtract, by its pixels: %s", scene.id, subtract, evidence)
            return _decided(scene, subtract, "pixels", f"{scene.why}; {evidence}")
        if len(samples) == LOOKS:
            break
    if clear == 0:
        detail = f"no clear pixel in the area tells whether the offset is in ({scene.why})"
        return Removed(
            id=scene.id,
            reason="nothing-clear",
            detail=detail,
            granule=scene.grid.granule,
            datetime=scene.datetime,
            satellite=scene.satellite,
        )
    return f"{scene.id} ({scene.provider.partition('@')[0]}): {scene.why}; {evidence}"


def _read(scene: Scene, band: str, window: Window, dtype: type[np.integer]) -> np.ndarray:
    out = np.empty((window.height, window.width), dtype)
    read_window(scene, band, window, out)
    return out


def _decided(scene: Scene, subtract: int, by: str, why: str) -> Scene:
    return scene.model_copy(update={"subtract": subtract, "decided": by, "why": why})


def _spread(windows: Sequence[Window]) -> list[Window]:
    # Steps of the golden ratio: whatever the first windows are, they lie far apart.
    order = sorted(range(len(windows)), key=lambda index: index * 0.6180339887498949 % 1)
    return [windows[index] for index in order]


def _undecidable(cases: Sequence[str]) -> str:
    lines = [f"  {case}" for case in cases[:5]]
    if len(cases) > 5:
        lines.append(f"  … and {len(cases) - 5} more")
    return (
        f"neither the catalogue nor the pixels of {len(cases)} scene(s) tell whether ESA's +1000 "
        "of baseline 04.00 is still in them:\n" + "\n".join(lines) + "\n"
        "Exclude them (search with exclude=[ids]), search provider 'earth-search-c1' or "
        "'planetary-computer', or state it by hand (plan with offsets={id: 0 or 1000})"
    )
