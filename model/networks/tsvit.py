"""TSViT: a vision transformer that looks along time first, with one token per class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.networks.attention import PreNormBlock
from model.networks.base import Network, days, everywhere

DAYS = 366


class TSViT(Network):
    """Temporo-spatial vision transformer.

    Follows Tarasiou, Chavez and Zafeiriou (2023), CVPR, arXiv 2301.04944. Different here: dates
    (and patches within a date) without any valid pixel are masked; pixels leave their patch in the
    order in which they came in.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    d, head_size : int
        Width of the tokens, and of each of the four heads.
    depth, heads : int
        Layers of each of the two encoders, and heads of each layer.
    patch, size : int
        Side of a patch and of a cell in pixels; the cell is what looks at itself.

    Notes
    -----
    A window is cut into cells of `size` pixels, each classified by itself. The source sees one
    cell; here windows may be any multiple, and a map is the same whatever the window.
    """

    time_layers = ("dates", "classes", "time", "time_norm")

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        d: int = 128,
        head_size: int = 32,
        depth: int = 4,
        heads: int = 4,
        patch: int = 2,
        size: int = 24,
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"size = {size} is no multiple of patch = {patch}")
        self.embed = nn.Linear(c_in * patch**2, d)
        self.dates = nn.Sequential(nn.Embedding(DAYS, d), Shift(d))
        self.classes = nn.Parameter(0.02 * torch.randn(n_classes, d))
        self.place = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, d))
        self.time, self.space = (
            nn.ModuleList(PreNormBlock(d, heads, head_size, 4 * d) for _ in range(depth))
            for _ in range(2)
        )
        self.time_norm, self.space_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.head = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, patch**2))
        self.patch = patch
        self.stride, self.halo = size, size - 1

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, H, W]
            Standardised reflectance; H and W multiples of `size`.
        valid : bool [B, T, H, W], optional
            Where there is data; default everywhere.
        doy : int [B, T]
            Day of the year (1 to 366) of each date.

        Returns
        -------
        float [B, K, H, W]
        """
        size, (rows, cols) = self.stride, x.shape[-2:]
        if rows % size or cols % size:
            raise ValueError(f"a window of {rows} × {cols} px; TSViT needs multiples of {size} px")
        x, valid = everywhere(x, valid)
        cells = cut(x, size).flatten(0, 2)
        seen = cut(valid[:, None], size).flatten(0, 2).squeeze(1)
        doy = days(doy, "TSViT").repeat_interleave(len(cells) // len(x), dim=0)
        logits = self._cells(cells, seen, doy)
        return join(logits.unflatten(0, (len(x), rows // size, cols // size)))

    def _cells(self, x: Tensor, valid: Tensor, doy: Tensor) -> Tensor:
        """Return logits [n, K, size, size] of cells x [n, C, T, size, size]."""
        patches = cut(x, self.patch)  # [n, h, w, C, T, p, p]
        n, h, w, _, t = patches.shape[:5]
        tokens = self.embed(patches.permute(0, 1, 2, 4, 5, 6, 3).flatten(4))
        tokens = tokens + self.dates((doy - 1) % DAYS)[:, None, None]
        seen = cut(valid[:, None], self.patch)[:, :, :, 0].any(dim=(4, 5)).reshape(n * h * w, t)
        classes = self._along_time(tokens.reshape(n * h * w, t, -1), seen)
        k = classes.shape[1]
        # From K tokens per patch to one picture of patches per class.
        pictures = classes.unflatten(0, (n, h * w)).transpose(1, 2).flatten(0, 1) + self.place
        for block in self.space:
            pictures = block(pictures)
        scores = self.head(self.space_norm(pictures))  # [n · K, h · w, p · p]
        scores = scores.reshape(n, k, h, w, self.patch, self.patch)
        return join(scores.permute(0, 2, 3, 1, 4, 5))

    def _along_time(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Return the class tokens [N, K, d] after looking at tokens [N, T, d] where seen [N, T]."""
        classes = self.classes.expand(len(tokens), -1, -1)
        k = classes.shape[1]
        tokens = torch.cat([classes, tokens], dim=1)
        seen = nn.functional.pad(seen, (k, 0), value=True)
        for block in self.time:
            tokens = block(tokens, seen)
        return self.time_norm(tokens)[:, :k]


class Shift(nn.Module):
    """The bias of the source's linear layer on one-hot days, beside its table."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + bias."""
        return x + self.bias


def cut(x: Tensor, side: int) -> Tensor:
    """Cut [B, …, H, W] into squares: [B, H / side, W / side, …, side, side]."""
    squares = x.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # […, h, side, w, side]
    return squares.transpose(-3, -2).movedim((-4, -3), (1, 2))


def join(squares: Tensor) -> Tensor:
    """Put squares [B, h, w, K, side, side] side by side: [B, K, h · side, w · side]."""
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
