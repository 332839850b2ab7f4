"""The networks: a file per architecture or close family, and a catalogue that describes each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cube.errors import ArtefactError
from model.networks.base import Network
from model.networks.catalogue import ARCHITECTURES, Architecture, Input
from model.networks.cost import Cost, measure
from model.networks.hierarchical import HierarchicalHead

#: Options that every architecture takes beside its own, unless it has levels or decisions itself:
#: outputs of each coarser label level, and what kind of heads; see `HierarchicalHead`.
LEVEL_OPTIONS = ("levels", "heads")


@dataclass(frozen=True)
class Description:
    """A preset of an architecture, for a number of bands, classes and dates.

    Attributes
    ----------
    name, preset : str
    input : {"pixel", "parcel-pixels", "parcel-image", "image"}
        What one sample is.
    cost : Cost
        Parameters, their share spent on time, arithmetic per pixel.
    causal : bool
        Whether dates are read once and in order.
    stride, halo : int
        See `model.networks.base.Network`.
    options : dict
        Every option with its value.
    summary, source : str
        One sentence, and where it was published.
    """

    name: str
    preset: str
    input: Input
    cost: Cost
    causal: bool
    stride: int
    halo: int
    options: dict[str, Any]
    summary: str
    source: str


def names() -> list[str]:
    """Return the names of all architectures."""
    return sorted(ARCHITECTURES)


def presets(name: str) -> list[str]:
    """Return the presets of an architecture, the default first."""
    return list(_entry(name).presets)


def options(name: str, *, preset: str | None = None, **given: Any) -> dict[str, Any]:
    """Return all options of an architecture with their values; see `create`.

    ``levels`` and ``heads`` are among them only where they are given.
    """
    entry = _entry(name)
    preset = preset or next(iter(entry.presets))
    if preset not in entry.presets:
        raise ArtefactError(_unknown(f"preset of {name}", preset, entry.presets))
    for option in given:
        if option not in entry.options and not (option in LEVEL_OPTIONS and entry.takes_levels):
            raise ArtefactError(_unknown(f"option of {name}", option, entry.options))
    return entry.options | entry.presets[preset] | given


def create(
    name: str,
    *,
    c_in: int,
    n_classes: int,
    months: int,
    preset: str | None = None,
    **given: Any,
) -> Network:
    """Return a new network.

    Parameters
    ----------
    name : str
        One of `names`.
    c_in, n_classes, months : int
        Bands C, outputs K, dates T of the samples.
    preset : str, optional
        A named set of options; default the architecture's first (``lite`` for ``hybrid``).
    **given
        Options that differ from the preset; for any architecture without levels of its own also
        ``levels`` (outputs of each coarser label level, coarsest first) and ``heads``, which make
        it a `HierarchicalHead`.

    Returns
    -------
    Network
        ``forward(x, valid, doy) -> logits``; shapes by the input of the architecture. Of those for
        images and pixels: x [B, C, T, H, W], valid [B, T, H, W], doy [B, T] → [B, K, H, W].

    Raises
    ------
    ArtefactError
        If the name, the preset or an option is unknown, or a value makes no network.
    """
    entry = _entry(name)
    chosen = options(name, preset=preset, **given)
    own = {option: value for option, value in chosen.items() if option not in LEVEL_OPTIONS}
    try:
        outputs = [*chosen.get("levels", ()), n_classes]
        sizes = {"c_in": c_in, "n_classes": sum(outputs)} | (
            {"dates": months} if entry.counts_dates else {}
        )
        network = entry.network(**sizes, **own)
        if "levels" not in chosen:
            return network
        return HierarchicalHead(network, outputs, chosen.get("heads", "plain"))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{name} with {chosen}: {error}") from error


def describe(
    name: str,
    preset: str | None = None,
    *,
    c_in: int = 4,
    n_classes: int = 51,
    months: int = 12,
) -> Description:
    """Describe an architecture: what it takes, what it costs, where it comes from.

    Builds the network and runs it once on a small random sample.

    Parameters
    ----------
    name, preset, c_in, n_classes, months
        See `create`.

    Raises
    ------
    ArtefactError
        If the name or the preset is unknown.
    """
    entry = _entry(name)
    preset = preset or next(iter(entry.presets))
    network = create(name, c_in=c_in, n_classes=n_classes, months=months, preset=preset)
    return Description(
        name=name,
        preset=preset,
        input=entry.input,
        cost=measure(network, c_in, months),
        causal=network.causal,
        stride=network.stride,
        halo=network.halo,
        options=options(name, preset=preset),
        summary=entry.summary,
        source=entry.source,
    )


def _entry(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ArtefactError(_unknown("architecture", name, ARCHITECTURES))
    return ARCHITECTURES[name]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {what}: '{name}'{hint} Known: {', '.join(known)}"
