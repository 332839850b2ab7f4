"""UNet3D: a U-Net whose convolutions and poolings go along time as well."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.base import BatchNorm, Network, everywhere, keep, masked_mean
from model.networks.reach import conv, halo, pool, up3


class UNet3D(Network):
    """Three-dimensional U-Net of three levels, averaged over the dates at the end.

    Follows Rustowicz et al. (2019), CVPR workshops, in the sizes that Garnot and Landrieu (2021),
    arXiv 2107.07933, compare with. Different here: invalid dates are zeroed before each convolution
    and left out of maxima, statistics and the final mean; and an odd number of dates is filled up
    with an invalid one instead of losing its last.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    width : int
        Channels of the first level; the others have 2 and 4 times as many.
    """

    time_layers = ("level0", "level1", "level2", "up1", "join1", "up0", "join0", "head")
    stride = 4
    halo = halo(
        [conv(3), up3, conv(2), up3, conv(2), pool, conv(2), pool, conv(2)],
        4,
    )

    def __init__(self, c_in: int, n_classes: int, width: int = 32) -> None:
        super().__init__()
        w = width
        self.level0 = nn.ModuleList([Conv3(c_in, w), Conv3(w, w)])
        self.level1 = nn.ModuleList([Conv3(w, 2 * w), Conv3(2 * w, 2 * w)])
        self.level2 = nn.ModuleList([Conv3(2 * w, 4 * w), Conv3(4 * w, 4 * w)])
        self.up1 = double(4 * w, 2 * w)
        self.join1 = nn.ModuleList([Conv3(4 * w, 2 * w), Conv3(2 * w, 2 * w)])
        self.up0 = double(2 * w, w)
        self.up0_norm = BatchNorm(w)
        self.join0 = nn.ModuleList([Conv3(2 * w, w), Conv3(w, w // 2)])
        self.head = nn.Conv3d(w // 2, n_classes, 3, padding=1)

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, H, W]
            Standardised reflectance; H and W multiples of 4.
        valid : bool [B, T, H, W], optional
            Where there is data; default everywhere. A date without any is left out.
        doy : int [B, T], optional
            Not used: this network knows the order of the dates.

        Returns
        -------
        float [B, K, H, W]
        """
        if x.shape[-2] % 4 or x.shape[-1] % 4:
            raise ValueError(
                f"a window of {x.shape[-2]} × {x.shape[-1]} px; UNet3D needs multiples of 4 px"
            )
        x, valid = everywhere(x, valid)
        x, full = fill_up(x, valid.any(dim=(2, 3)))
        half, quarter = coarser(full), coarser(coarser(full))
        fine = through(self.level0, x, full)
        middle = through(self.level1, halve(fine, full), half)
        deep = through(self.level2, halve(middle, half), quarter)
        y = torch.cat([keep(self.up1(deep), half), middle], dim=1)
        y = through(self.join1, y, half)
        up = F.leaky_relu(self.up0_norm(self.up0(y), full))
        y = through(self.join0, torch.cat([keep(up, full), fine], dim=1), full)
        return masked_mean(self.head(y), full[:, None, :, None, None], dim=2)


class Conv3(nn.Module):
    """3 × 3 × 3 convolution, batch normalisation, leaky ReLU; zero at invalid dates."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(c_in, c_out, 3, padding=1)
        self.norm = BatchNorm(c_out)

    def forward(self, x: Tensor, dates: Tensor) -> Tensor:
        """Return [B, F', T, H, W] from x [B, F, T, H, W] and dates [B, T]."""
        return keep(F.leaky_relu(self.norm(self.conv(x), dates)), dates)


def through(blocks: nn.ModuleList, x: Tensor, dates: Tensor) -> Tensor:
    """Run `Conv3` after `Conv3`."""
    for block in blocks:
        x = block(x, dates)
    return x


def double(c_in: int, c_out: int) -> nn.ConvTranspose3d:
    """Return a transposed convolution that doubles dates, rows and columns."""
    return nn.ConvTranspose3d(c_in, c_out, 3, stride=2, padding=1, output_padding=1)


def fill_up(x: Tensor, dates: Tensor) -> tuple[Tensor, Tensor]:
    """Append invalid dates up to a multiple of 4, which two poolings divide."""
    missing = -x.shape[2] % 4
    return F.pad(x, (0, 0, 0, 0, 0, missing)), F.pad(dates, (0, missing))


def coarser(dates: Tensor) -> Tensor:
    """Return bool [B, T / 2]: whether one of two dates [B, T] is valid."""
    return dates.unflatten(1, (-1, 2)).any(dim=2)


def halve(x: Tensor, dates: Tensor) -> Tensor:
    """Return the maximum over valid dates of 2 × 2 × 2 blocks; zero where none of them is."""
    lowest = torch.finfo(x.dtype).min
    seen = dates[:, None, :, None, None]
    return keep(F.max_pool3d(x.masked_fill(~seen, lowest), 2), coarser(dates))
