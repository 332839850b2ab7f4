"""U-Nets over a feature map, in two sizes, and how far each looks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Widths = Literal["reference", "lite"]


@dataclass(frozen=True)
class Shape:
    """What distinguishes the two U-Nets.

    Attributes
    ----------
    down : tuple of int
        Channels after each level of the encoder, the last being the bottleneck.
    up : tuple of int
        Channels after each level of the decoder.
    conv_bias : bool
        Whether the 3 × 3 convolutions carry a bias although batch normalisation follows.
    bilinear : bool
        Upsampling: bilinear with aligned corners, or nearest.
    """

    down: tuple[int, ...]
    up: tuple[int, ...]
    conv_bias: bool
    bilinear: bool


#: `reference` is the network of Setaro, Coursimaux and Placier (2025); `lite` has 1/27 of its
#: parameters and runs more than three times as fast.
SHAPES: dict[str, Shape] = {
    "reference": Shape((64, 128, 256, 512, 512), (256, 128, 64, 64), True, True),
    "lite": Shape((32, 64, 128), (64, 32), False, False),
}


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that survives one value per channel.

    A last batch of a single 24 px sample reaches the bottleneck of `reference` as one cell. It has
    no variance, so the running statistics are used instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, C, H, W]."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class DoubleConv(nn.Sequential):
    """Twice: 3 × 3 convolution with zero padding, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, bias: bool) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias),
            BatchNorm(c_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=bias),
            BatchNorm(c_out),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net from features to logits.

    Parameters
    ----------
    c_in : int
        Channels of the features.
    n_classes : int
        K, outputs of the last 1 × 1 convolution.
    widths : {"reference", "lite"}
        Which of `SHAPES`.

    Attributes
    ----------
    stride : int
        2 to the number of poolings. Windows whose corner and size are multiples of it pool the
        same pixels together.
    halo : int
        Pixels around an output beyond which nothing changes it (exact for the worst position; in
        windows aligned to `stride`).
    window_sensitive : bool
        Whether an output also depends on the size of the window and on its place in it, although
        on no pixel beyond `halo`. True for `reference`: with aligned corners the upsampled grid is
        stretched by (2n - 1)/(2n - 2), so that coarse cells move against the pixels by up to
        half a cell from one border to the other. Maps of such a network use one fixed window size.
    """

    def __init__(self, c_in: int, n_classes: int, widths: Widths = "lite") -> None:
        super().__init__()
        shape = SHAPES[widths]
        channels = (c_in, *shape.down)
        pairs = itertools.pairwise(channels)
        self.down = nn.ModuleList(DoubleConv(i, o, shape.conv_bias) for i, o in pairs)
        below = (shape.down[-1], *shape.up)
        skips = shape.down[-2::-1]
        triples = zip(skips, below, shape.up, strict=False)
        self.up = nn.ModuleList(DoubleConv(s + b, o, shape.conv_bias) for s, b, o in triples)
        self.head = nn.Conv2d(shape.up[-1], n_classes, 1)
        self.bilinear = shape.bilinear
        self.stride = 2 ** len(shape.up)
        self.halo = halo(len(shape.up), shape.bilinear)
        self.window_sensitive = shape.bilinear
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K, H, W] from features [B, C, H, W]; H and W at least `stride`."""
        if min(x.shape[-2:]) < self.stride:
            raise ValueError(
                f"a window of {x.shape[-2]} × {x.shape[-1]} px is smaller than the network's "
                f"stride; use windows of at least {self.stride} px"
            )
        skips = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat([skip, _pad_to(self._upsample(x), skip)], dim=1))
        return self.head(x)

    def _upsample(self, x: Tensor) -> Tensor:
        if self.bilinear:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return F.interpolate(x, scale_factor=2, mode="nearest")


def _pad_to(x: Tensor, other: Tensor) -> Tensor:
    """Pad with zeros, evenly, to the size of `other`: pooling an odd size loses a row."""
    rows, cols = other.shape[-2] - x.shape[-2], other.shape[-1] - x.shape[-1]
    if not rows and not cols:
        return x
    return F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))


def halo(levels: int, bilinear: bool) -> int:
    """Return how far a U-Net of `levels` poolings looks, in pixels per side.

    Follows the interval of pixels behind one output back through the decoder (each block of two
    3 × 3 convolutions adds 2 on both sides), the bottleneck and the encoder, and takes the worst
    position of the output within a pooling cell.

    Notes
    -----
    Upsampling divides the interval by two. Nearest: cell floor(i / 2). Bilinear with aligned
    corners: a source coordinate between i/2 - 1/2 and i/2, and the two cells around it; that is the
    bound for windows of any size. The skip connections look less far than the way around.
    """
    widest = 0
    for position in range(2**levels):
        first, last = position, position
        for _ in range(levels):
            first, last = first - 2, last + 2
            first, last = _above(first, last, bilinear)
        first, last = first - 2, last + 2
        for _ in range(levels):
            first, last = 2 * first - 2, 2 * last + 1 + 2
        widest = max(widest, position - first, last - position)
    return widest


def _above(first: int, last: int, bilinear: bool) -> tuple[int, int]:
    if bilinear:
        return math.floor((first - 1) / 2), math.ceil(last / 2)
    return first // 2, last // 2
