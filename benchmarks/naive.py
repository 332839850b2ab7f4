"""The hybrid and its map as one writes them first: what cropcube's formulation is compared with."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from model.networks.hybrid import HybridTemporalUNet
from model.samples import Normalisation

#: Side of the windows of the naive map, and what is thrown away of them on each side: the context
#: that the small U-Net needs, in whole pooling cells.
WINDOW, CONTEXT = 128, 24


class NaiveHybrid(nn.Module):
    """The same network: pixels reshaped to [B·H·W, C, T], Conv1d, plain memory layout.

    The same numbers as ours where a pixel has all dates or none.
    """

    def __init__(self, ours: HybridTemporalUNet) -> None:
        super().__init__()
        encoder = ours.temporal
        c_in, d, k = encoder.conv1.in_channels, encoder.d, encoder.conv1.kernel_size[0]
        layers: list[nn.Module] = []
        for width in (c_in, d):
            layers += [nn.Conv1d(width, d, k, padding=k // 2), nn.BatchNorm1d(d), nn.ReLU()]
            layers += [nn.Dropout(encoder.dropout)]
        self.temporal = nn.Sequential(*layers)
        pairs = ((encoder.conv1, encoder.bn1), (encoder.conv2, encoder.bn2))
        for place, (conv, norm) in zip((0, 4), pairs, strict=True):
            state = conv.state_dict()
            self.temporal[place].load_state_dict(state | {"weight": state["weight"].squeeze(-1)})
            self.temporal[place + 1].load_state_dict(norm.state_dict())
        self.unet = copy.deepcopy(ours.unet).to(memory_format=torch.contiguous_format)

    def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None = None) -> Tensor:
        b, c, t, h, w = x.shape
        pixels = (x * valid[:, None]).permute(0, 3, 4, 1, 2).reshape(b * h * w, c, t)
        features = self.temporal(pixels).amax(dim=2).reshape(b, h, w, -1).permute(0, 3, 1, 2)
        return self.unet((features * valid.any(dim=1)[:, None]).contiguous())


def naive_map(
    network: nn.Module,
    normalisation: Normalisation,
    reflectance: np.ndarray,
    doy: np.ndarray,
    context: int,
) -> np.ndarray:
    """Map uint16 [T, C, y, x] in windows that are predicted whole; float32 [K, y, x].

    Windows overlap: `context` pixels of each side are thrown away, but for the edge of the whole.
    """
    height, width = reflectance.shape[2:]
    days = torch.as_tensor(doy)[None]
    found: np.ndarray | None = None
    with torch.inference_mode():
        for top, first, last in _spans(height, context):
            for left, begin, end in _spans(width, context):
                window = reflectance[..., top : top + WINDOW, left : left + WINDOW]
                x, valid = normalisation.apply(window)
                logits = network(torch.as_tensor(x)[None], torch.as_tensor(valid)[None], days)
                part = logits[0].softmax(dim=0).numpy()
                if found is None:
                    found = np.empty((len(part), height, width), np.float32)
                inside = (slice(first - top, last - top), slice(begin - left, end - left))
                found[:, first:last, begin:end] = part[:, *inside]
    assert found is not None
    return found


def _spans(size: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Yield start of each window along one axis, and the pixels it decides (first, last)."""
    step = WINDOW - 2 * context
    starts = [*range(0, size - WINDOW, step), max(0, size - WINDOW)]
    decided = 0
    for start in starts:
        last = size if start == starts[-1] else start + WINDOW - context
        yield start, decided, last
        decided = last
