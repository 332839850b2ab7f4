"""The networks: one file per architecture, and a registry that describes each."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cube.errors import ArtefactError
from model.networks.hybrid import HybridTemporalUNet


@dataclass(frozen=True)
class Architecture:
    """An entry of the registry.

    Attributes
    ----------
    network : type
        A module with ``forward(x, valid, doy) -> logits [B, K, H, W]`` and the attributes
        ``stride``, ``halo`` and ``window_sensitive``; its keywords after ``c_in`` and
        ``n_classes`` (and ``months``, if it has it) are the options.
    summary, source : str
        One sentence, and where it was published.
    presets : dict
        Name to options; the first is the default.
    """

    network: type[nn.Module]
    summary: str
    source: str
    presets: dict[str, dict[str, Any]] = field(default_factory=lambda: {"default": {}})

    @property
    def options(self) -> dict[str, Any]:
        """Names and default values of the options."""
        parameters = inspect.signature(self.network).parameters.values()
        given = {"c_in", "n_classes", "months"}
        return {p.name: p.default for p in parameters if p.name not in given}

    def resolve(self, name: str, preset: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """Return every option with its value: defaults, then the preset, then `options`."""
        preset = preset or next(iter(self.presets))
        if preset not in self.presets:
            raise ArtefactError(_unknown(f"preset of {name}", preset, self.presets))
        for option in options:
            if option not in self.options:
                raise ArtefactError(_unknown(f"option of {name}", option, self.options))
        return self.options | self.presets[preset] | options


ARCHITECTURES: dict[str, Architecture] = {
    "hybrid": Architecture(
        network=HybridTemporalUNet,
        summary="Temporal convolutions on each pixel, pooled over time, then a U-Net.",
        source="Setaro, Coursimaux and Placier (2025); reference study of this project",
        presets={"lite": {"widths": "lite"}, "reference": {"widths": "reference"}},
    ),
}


def names() -> list[str]:
    """Return the names of all architectures."""
    return sorted(ARCHITECTURES)


def options(name: str, *, preset: str | None = None, **given: Any) -> dict[str, Any]:
    """Return all options of an architecture with their values; see `create`."""
    return _entry(name).resolve(name, preset, given)


def create(
    name: str,
    *,
    c_in: int,
    n_classes: int,
    months: int,
    preset: str | None = None,
    **given: Any,
) -> nn.Module:
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
        Options that differ from the preset.

    Returns
    -------
    torch.nn.Module
        ``forward(x [B, C, T, H, W], valid [B, T, H, W], doy [B, T]) -> logits [B, K, H, W]``, with
        ``stride``, ``halo`` and ``window_sensitive``.

    Raises
    ------
    ArtefactError
        If the name, the preset or an option is unknown, or a value makes no network.
    """
    entry = _entry(name)
    chosen = entry.resolve(name, preset, given)
    if "months" in inspect.signature(entry.network).parameters:
        chosen["months"] = months
    try:
        return entry.network(c_in=c_in, n_classes=n_classes, **chosen)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{name} with {chosen}: {error}") from error


def describe(name: str, *, c_in: int = 4, n_classes: int = 51, months: int = 12) -> dict[str, Any]:
    """Describe an architecture: what it takes, how large it is, where it comes from.

    Returns
    -------
    dict
        ``name``, ``summary``, ``source``, ``input``, ``options`` and ``presets``; the latter maps
        each preset to its ``options``, ``parameters`` (trainable, for `c_in` bands, `n_classes`
        outputs and `months` dates), ``stride`` and ``halo``.

    Raises
    ------
    ArtefactError
        If the name is unknown.
    """
    entry = _entry(name)
    presets = {}
    for preset, chosen in entry.presets.items():
        network = create(name, c_in=c_in, n_classes=n_classes, months=months, preset=preset)
        presets[preset] = {
            "options": chosen,
            "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "stride": network.stride,
            "halo": network.halo,
        }
    return {
        "name": name,
        "summary": entry.summary,
        "source": entry.source,
        "input": {"bands": c_in, "classes": n_classes, "months": months},
        "options": entry.options,
        "presets": presets,
    }


def _entry(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ArtefactError(_unknown("architecture", name, ARCHITECTURES))
    return ARCHITECTURES[name]


def _unknown(what: str, name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {what}: '{name}'{hint} Known: {', '.join(known)}"
