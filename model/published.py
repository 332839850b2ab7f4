"""Published figures that ablations stand beside; in percent where not said otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published table: where it is from, head and rows as text."""

    source: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_GARNOT = "Garnot et al. (2019), hal-02386701"

PUBLISHED: dict[str, Published] = {
    "shuffle-time": Published(
        f"{_GARNOT}, Table 4: class mean F with dates in order, and shuffled and retrained",
        ("model", "in order", "shuffled", "change"),
        (
            ("CNN+GRU7", "53.2", "52.0", "-1.2"),
            ("CNN+GRU9", "55.1", "48.8", "-6.3"),
            ("GRU", "53.8", "45.3", "-8.5"),
            ("ConvLSTM", "49.2", "47.9", "-1.3"),
        ),
    ),
    "time-share": Published(
        f"{_GARNOT}, Tables 1 and 2: share of the parameters in the GRU, as published",
        ("model", "parameters", "share on time", "OA", "F"),
        (
            ("CNN", "92,899", "0", "89.5", "34.9"),
            ("CNN+GRU7", "92,035", ".7", "93.4", "53.2"),
            ("CNN+GRU8", "93,807", ".8", "93.7", "55.1"),
            ("CNN+GRU9", "90,179", ".9", "93.7", "55.1"),
            ("GRU", "94,587", "1", "93.5", "53.8"),
            ("ConvLSTM", "95,353", "–", "93.1", "49.2"),
        ),
    ),
    "composites": Published(
        "Weikmann, Paris and Bruzzone, Austria 2018, tile 33UVP, LSTM",
        ("input", "OA", "change"),
        (("70 images", "83.23", ""), ("12 monthly composites", "80.89", "-2.3")),
    ),
    "years": Published(
        "Sen4AgriNet PAD, weighted F1: scenario 1, and scenario 3 (unseen region and year)",
        ("model", "scenario 1", "scenario 3", "change"),
        (
            ("U-Net", "82.6", "43.5", "-39.1"),
            ("ConvLSTM", "85.2", "40.5", "-44.7"),
            ("ConvSTAR", "80.4", "34.5", "-45.9"),
        ),
    ),
}
