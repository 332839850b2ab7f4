"""Six parcel networks of about 93 000 parameters that spend them on space or on time.

Source: Garnot, Landrieu, Giordano and Chehata (2019), time-space trade-off in deep learning models
for crop classification, IGARSS, hal-02386701. No code was published. All take one parcel: its
bounding box resized to 32 × 32 pixels, invalid outside the parcel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from model.networks.base import (
    BatchNorm,
    Network,
    compact,
    everywhere,
    example_days,
    masked_max,
    masked_mean,
    per_date,
)
from model.networks.recurrent import run

#: Side of a parcel's image in pixels.
SIDE = 32


class ParcelImageNetwork(Network):
    """A network for the images of one parcel; subclasses implement `classify`."""

    def classify(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return logits [B, K] from x [B, C, T, 32, 32], zero where invalid, and its valid."""
        raise NotImplementedError

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, 32, 32]
            Standardised reflectance.
        valid : bool [B, T, 32, 32], optional
            Where there is data inside the parcel; default everywhere. A date without any is left
            out.
        doy : int [B, T], optional
            Not used: these networks know the order of the dates, or not even that.

        Returns
        -------
        float [B, K]
        """
        if tuple(x.shape[-2:]) != (SIDE, SIDE):
            raise ValueError(
                f"a parcel image has {x.shape[-2]} × {x.shape[-1]} px; resize it to {SIDE} × {SIDE}"
            )
        return self.classify(*everywhere(x, valid))

    def example(self, batch: int, c_in: int, dates: int) -> dict[str, Tensor]:
        """Return random parcels, as keywords of `forward`."""
        x = torch.randn(batch, c_in, dates, SIDE, SIDE)
        valid = torch.ones(batch, dates, SIDE, SIDE, dtype=torch.bool)
        return {"x": x, "valid": valid, "doy": example_days(batch, dates)}


class GarnotCNN(ParcelImageNetwork):
    """A CNN on each date, then the largest value of each feature: no notion of time at all.

    Follows the CNN of Garnot et al. (2019), hal-02386701.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    kernels : sequence of int
        Channels of the three convolutions.
    """

    def __init__(self, c_in: int, n_classes: int, kernels: Sequence[int] = (16, 32, 96)) -> None:
        super().__init__()
        self.cnn = date_cnn(c_in, kernels)
        self.head = mlp(4 * kernels[-1], 128, 64, n_classes)

    def classify(self, x: Tensor, valid: Tensor) -> Tensor:
        """See `ParcelImageNetwork.classify`."""
        dates = valid.any(dim=(2, 3))
        return self.head(masked_max(per_date(self.cnn, x, dates), dates[..., None], dim=1))


class GarnotCNNGRU(ParcelImageNetwork):
    """A CNN on each date, then a GRU over the dates.

    Follows CNN+GRU7, 8 and 9 of Garnot et al. (2019), hal-02386701: their number is the share of
    parameters spent on time. The classifier is h-64-K, with which the published counts agree.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    kernels : sequence of int
        Channels of the three convolutions.
    hidden : int
        Width of the GRU.
    """

    time_layers = ("gru",)
    causal = True

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        kernels: Sequence[int] = (16, 16, 16),
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.cnn = date_cnn(c_in, kernels)
        self.gru = nn.GRU(4 * kernels[-1], hidden, batch_first=True)
        self.head = mlp(hidden, 64, n_classes)

    def classify(self, x: Tensor, valid: Tensor) -> Tensor:
        """See `ParcelImageNetwork.classify`."""
        dates = valid.any(dim=(2, 3))
        series, lengths, _ = compact(per_date(self.cnn, x, dates).transpose(1, 2), dates)
        return self.head(run(self.gru, series, lengths)[1][-1])


class GarnotGRU(ParcelImageNetwork):
    """A GRU over mean and standard deviation of each band: nearly everything is spent on time.

    Follows the GRU of Garnot et al. (2019), hal-02386701.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    hidden : int
        Width of the GRU.
    """

    time_layers = ("gru",)
    causal = True

    def __init__(self, c_in: int, n_classes: int, hidden: int = 156) -> None:
        super().__init__()
        self.gru = nn.GRU(2 * c_in, hidden, batch_first=True)
        self.head = mlp(hidden, 64, n_classes)

    def classify(self, x: Tensor, valid: Tensor) -> Tensor:
        """See `ParcelImageNetwork.classify`."""
        statistics = mean_and_deviation(x.flatten(3), valid.flatten(2))
        series, lengths, _ = compact(statistics, valid.any(dim=(2, 3)))
        return self.head(run(self.gru, series, lengths)[1][-1])


class GarnotConvLSTM(ParcelImageNetwork):
    """A convolutional LSTM over the dates, its last state averaged over the image.

    Follows the ConvLSTM of Garnot et al. (2019), hal-02386701. The source gives its widths and its
    number of parameters; that the gates are two convolutions, and that the state is averaged, is
    our reading of them.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    inner, hidden : int
        Channels between the two convolutions of the gates, and of the state.
    """

    time_layers = ("gates",)
    causal = True

    def __init__(self, c_in: int, n_classes: int, inner: int = 30, hidden: int = 64) -> None:
        super().__init__()
        self.gates = nn.Sequential(
            nn.Conv2d(c_in + hidden, inner, 3, padding=1),
            BatchNorm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, 4 * hidden, 3, padding=1),
            BatchNorm(4 * hidden),
        )
        self.head = mlp(hidden, 64, n_classes)
        self.hidden = hidden

    def classify(self, x: Tensor, valid: Tensor) -> Tensor:
        """See `ParcelImageNetwork.classify`."""
        h = x.new_zeros(len(x), self.hidden, *x.shape[-2:])
        c = torch.zeros_like(h)
        for frame, seen in zip(x.unbind(2), valid.any(dim=(2, 3)).unbind(1), strict=True):
            # Only the parcels that were seen on this date move on.
            if bool(seen.any()):
                h_new, c_new = self._step(frame[seen], h[seen], c[seen])
                where = (seen.nonzero().squeeze(1),)
                h, c = h.index_put(where, h_new), c.index_put(where, c_new)
        return self.head(h.mean(dim=(2, 3)))

    def _step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


def date_cnn(c_in: int, kernels: Sequence[int]) -> nn.Sequential:
    """Return three unpadded 3 × 3 convolutions, each normalised and pooled: 32 px → 2 px, flat."""
    layers: list[nn.Module] = []
    for i, o in pairwise((c_in, *kernels)):
        layers += [nn.Conv2d(i, o, 3), BatchNorm(o), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())


def mlp(*widths: int) -> nn.Sequential:
    """Return linear layers with ReLU between them and none after the last."""
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mean_and_deviation(x: Tensor, valid: Tensor) -> Tensor:
    """Return [B, 2 C, T]: mean and standard deviation of x [B, C, T, S] over valid [B, T, S].

    The deviation is that of the pixels at hand (divided by their number), but at least 1e-4, where
    its gradient would grow without bound: a single pixel has that.
    """
    mean = masked_mean(x, valid[:, None], dim=3)
    variance = masked_mean((x - mean[..., None]).square(), valid[:, None], dim=3)
    return torch.cat([mean, variance.clamp(min=1e-8).sqrt()], dim=1)
