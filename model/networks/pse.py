"""PSE + L-TAE: a parcel as a set of pixels on each date, then temporal attention."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from model.networks.base import BatchNorm, Network, everywhere, example_days, per_date
from model.networks.garnot import mean_and_deviation
from model.networks.ltae import LTAE, decoder

#: What is told about a parcel's shape: perimeter, area, cover of its box, perimeter / area.
GEOMETRY = 4


class PSELTAE(Network):
    """Pixel-set encoder, L-TAE, decoder 128-64-32-K.

    Follows Garnot et al. (2020), CVPR, arXiv 1911.07757 (the pixel-set encoder) and Garnot and
    Landrieu (2020), arXiv 2007.00586 (L-TAE). Different here: see `LTAE`; and any number of pixels
    is taken, each counted once, instead of 64 drawn with repetition.

    Parameters
    ----------
    c_in, n_classes, dates : int
        Bands C, outputs K, dates T.
    norm : {"channels", "dates"}
        See `LTAE`: the source's normalisation over ``dates`` makes weights for `dates` dates only.
    """

    time_layers = ("encoder",)

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        dates: int,
        norm: Literal["channels", "dates"] = "channels",
    ) -> None:
        super().__init__()
        if norm not in ("channels", "dates"):
            raise ValueError(f"norm '{norm}' is unknown; use channels or dates")
        widths = ((c_in, 32), (32, 64))
        self.pixels = nn.Sequential(
            *(m for i, o in widths for m in (nn.Linear(i, o), BatchNorm(o), nn.ReLU()))
        )
        self.parcel = nn.Sequential(nn.Linear(128 + GEOMETRY, 128), BatchNorm(128))
        self.encoder = LTAE(128, dates if norm == "dates" else None)
        self.head = decoder(n_classes)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        doy: Tensor | None = None,
        geometry: Tensor | None = None,
    ) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, S] or [B, C, T, H, W]
            Standardised reflectance of the parcel's pixels, in any order.
        valid : bool [B, T, S] or [B, T, H, W], optional
            Which pixels are there; default all. A date without any is left out.
        doy : int [B, T]
            Day of the year of each date.
        geometry : float [B, 4]
            Perimeter, area, cover of the bounding box, perimeter / area; standardised.

        Returns
        -------
        float [B, K]
        """
        if geometry is None:
            raise ValueError(f"PSELTAE needs geometry [B, {GEOMETRY}], the shape of each parcel")
        x, valid = everywhere(x, valid)
        x, valid = x.flatten(3), valid.flatten(2)
        dates = valid.any(dim=2)
        encoded = self._pixels(x, valid)
        shape = geometry[:, :, None].expand(-1, -1, x.shape[2]).to(encoded)
        parcels = per_date(self.parcel, torch.cat([encoded, shape], dim=1), dates)
        return self.head(self.encoder(parcels, dates, doy))

    def _pixels(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return mean and deviation [B, 128, T] of the encoded pixels."""
        found = self.pixels(x.permute(0, 2, 3, 1)[valid])
        encoded = found.new_zeros(*valid.shape, found.shape[-1])
        encoded[valid] = found
        return mean_and_deviation(encoded.permute(0, 3, 1, 2), valid)

    def example(self, batch: int, c_in: int, dates: int) -> dict[str, Tensor]:
        """Return random parcels of 64 pixels, as keywords of `forward`."""
        return {
            "x": torch.randn(batch, c_in, dates, 64),
            "valid": torch.ones(batch, dates, 64, dtype=torch.bool),
            "doy": example_days(batch, dates),
            "geometry": torch.randn(batch, GEOMETRY),
        }
