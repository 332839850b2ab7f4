"""What all networks share: the facts they state about themselves, and how dates are left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Series that a pixel network takes at once outside of training: about what caches hold.
SERIES = 8192


class Network(nn.Module):
    """A network that says what training, maps and the registry need to know.

    Attributes
    ----------
    stride : int
        Windows have sides and corners that are multiples of it, in pixels.
    halo : int
        Pixels around an output beyond which nothing changes it, in windows aligned to `stride`
        and apart from statistics over the window (see `window_sensitive`).
    window_sensitive : bool
        Whether an output also depends on the size of the window.
    causal : bool
        Whether the dates are read once and in order, so that the state after a date knows nothing
        of later dates.
    time_layers : tuple of str
        Submodules that mix or weigh dates: the parameters spent on time.
    undecayed : tuple of str
        Parameters that weight decay leaves alone.
    """

    stride: int = 1
    halo: int = 0
    window_sensitive: bool = False
    causal: bool = False
    time_layers: tuple[str, ...] = ()
    undecayed: tuple[str, ...] = ()

    def example(self, batch: int, c_in: int, dates: int) -> dict[str, Tensor]:
        """Return random inputs of `batch` samples, as keywords of `forward`."""
        # As small as possible; a U-Net of stride 8 must be left with more than one cell.
        side = 8 if self.stride == 1 else max(16, self.stride)
        x = torch.randn(batch, c_in, dates, side, side)
        return {
            "x": x,
            "valid": torch.ones(batch, dates, side, side, dtype=torch.bool),
            "doy": example_days(batch, dates),
        }


class SeriesNetwork(Network):
    """A network for the series of single pixels (or of parcel means).

    Subclasses implement `classify`. They accept windows as well, as that many pixels; then the
    result is a map, and nothing around a pixel matters.
    """

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """Return logits [N, K] from x [N, C, T], zero where invalid, valid [N, T], doy [N, T]."""
        raise NotImplementedError

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [N, C, T] or [B, C, T, H, W]
            Standardised reflectance.
        valid : bool [N, T] or [B, T, H, W], optional
            Where there is data; default everywhere.
        doy : int [N, T] or [B, T], optional
            Day of the year (1 to 366) of each date.

        Returns
        -------
        float [N, K] or [B, K, H, W]
        """
        if x.ndim == 3:
            valid = x.new_ones(len(x), x.shape[2], dtype=torch.bool) if valid is None else valid
            return self.classify(x.masked_fill(~valid[:, None], 0), valid, doy)
        b, c, t, h, w = x.shape
        x = x.permute(0, 3, 4, 1, 2).reshape(b * h * w, c, t)
        if valid is not None:
            valid = valid.permute(0, 2, 3, 1).reshape(b * h * w, t)
        if doy is not None:
            doy = doy[:, None].expand(b, h * w, t).reshape(b * h * w, t)
        # In training the statistics of a batch are taken over all of it, so it stays whole.
        size = len(x) if self.training else SERIES
        parts = [
            self(
                x[i : i + size],
                None if valid is None else valid[i : i + size],
                None if doy is None else doy[i : i + size],
            )
            for i in range(0, len(x), size)
        ]
        return torch.cat(parts).reshape(b, h, w, -1).permute(0, 3, 1, 2)

    def example(self, batch: int, c_in: int, dates: int) -> dict[str, Tensor]:
        """Return random series, as keywords of `forward`."""
        valid = torch.ones(batch, dates, dtype=torch.bool)
        x = torch.randn(batch, c_in, dates)
        return {"x": x, "valid": valid, "doy": example_days(batch, dates)}


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of [B, C, …] that leaves invalid dates out of its statistics.

    A batch with one value per channel has no variance; the running statistics are used instead,
    so that a last batch of one sample works.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of dimensions."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise x [B, C, …], or x [B, C, T, …] with valid [B, T]: 0 at other dates."""
        if valid is not None and not self.training:
            return keep(super().forward(x), valid)
        if valid is not None and not bool(valid.all()):
            dates = x.transpose(1, 2)
            out = torch.zeros_like(dates)
            out[valid] = self(dates[valid]).to(out.dtype)
            return out.transpose(1, 2)
        if self.training and x.numel() <= x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def example_days(batch: int, dates: int) -> Tensor:
    """Return days of the year [B, T], spread evenly over the year."""
    return torch.linspace(1, 365, dates).round().long().expand(batch, dates)


def days(doy: Tensor | None, name: str) -> Tensor:
    """Return `doy`, or say that `name` cannot do without."""
    if doy is None:
        raise ValueError(f"{name} looks at the dates: give doy, the day of the year of each")
    return doy


def keep(x: Tensor, valid: Tensor) -> Tensor:
    """Return x [B, C, T, …] with zeros at the dates outside valid [B, T].

    Before a convolution over time this makes an invalid date the same as the padding at the ends.
    """
    return x * valid.reshape(valid.shape[0], 1, valid.shape[1], *(1,) * (x.ndim - 3))


def compact(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move the valid dates of each series to its front, in order.

    Parameters
    ----------
    x : float [N, C, T]
        Zero where invalid.
    valid : bool [N, T]

    Returns
    -------
    x : float [N, C, T]
    lengths : int [N]
        Valid dates, but at least 1: a series without any is one date of zeros.
    order : int [N, T]
        Where each date came from.
    """
    order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)
    lengths = valid.sum(dim=1).clamp(min=1)
    return x.gather(2, order[:, None].expand_as(x)), lengths, order


def prefix(lengths: Tensor, dates: int) -> Tensor:
    """Return bool [N, T], true for the first `lengths` dates of each series."""
    return torch.arange(dates, device=lengths.device) < lengths[:, None]


def to_length(x: Tensor, valid: Tensor, dates: int, name: str) -> tuple[Tensor, Tensor]:
    """Append invalid dates to x [N, C, T] and valid [N, T], or refuse a series that is longer."""
    missing = dates - x.shape[2]
    if missing < 0:
        raise ValueError(
            f"{name} was made for {dates} dates and got {x.shape[2]}; its weights know no more, "
            "so train one for the longer series"
        )
    pad = nn.functional.pad
    return pad(x, (0, missing)), pad(valid, (0, missing))


def masked_mean(x: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Return the mean of x over the places of `dim` where valid (of x's shape, or 1); else 0."""
    count = valid.sum(dim=dim).clamp(min=1)
    return (x * valid).sum(dim=dim) / count


def masked_max(x: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Return the largest value of x along `dim` where valid; 0 where nothing is."""
    lowest = torch.finfo(x.dtype).min
    return x.masked_fill(~valid, lowest).amax(dim=dim).masked_fill(~valid.any(dim=dim), 0)


def per_date(module: nn.Module, x: Tensor, dates: Tensor) -> Tensor:
    """Run a module on each date by itself, and only where there is one.

    Parameters
    ----------
    module : nn.Module
        From [n, C, …] to [n, F, …].
    x : float [B, C, T, …]
    dates : bool [B, T]

    Returns
    -------
    float [B, T, F, …]
        Zero at the other dates; they do not enter any statistics.
    """
    found = module(x.transpose(1, 2)[dates])
    out = found.new_zeros(*dates.shape, *found.shape[1:])
    out[dates] = found
    return out


def everywhere(x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return x [B, C, T, …] with zeros where it is invalid, and valid [B, T, …], never None."""
    if valid is None:
        return x, torch.ones_like(x[:, 0], dtype=torch.bool)
    return x.masked_fill(~valid[:, None], 0), valid
