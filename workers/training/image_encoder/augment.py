"""Random looks of one picture: turned, scaled, moved, mirrored, recoloured, partly hidden."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_GREY_AXIS = 1 / math.sqrt(3)
_TURN = torch.tensor(((0.0, -_GREY_AXIS, _GREY_AXIS), (_GREY_AXIS, 0.0, -_GREY_AXIS), (-_GREY_AXIS, _GREY_AXIS, 0.0)))


def augment(pictures: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One random look of each picture: float[n, 3, s, s] in -1..1 on white -> float[n, 3, side, side] in -1..1."""
    n = len(pictures)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    def chance(share: float) -> Tensor:
        return torch.rand(n, generator=generator) < share

    angle, scale, aspect = between(-0.35, 0.35), 0.92 * between(-0.3, 0.3).exp(), between(-0.15, 0.15).exp()
    mirror = torch.where(chance(0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = (
        torch.stack((cos * aspect * mirror, -sin / aspect, between(-0.2, 0.2)), 1),
        torch.stack((sin * aspect * mirror, cos / aspect, between(-0.2, 0.2)), 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), [n, 3, side, side], align_corners=False)
    # Sampling less one, so that what lies outside is white.
    x = functional.grid_sample(pictures - 1, grid, align_corners=False) + 1
    return _hide(_recolour(x, between, chance), chance(0.4), generator).contiguous(memory_format=torch.channels_last)


def _recolour(x: Tensor, between: Callable[[float, float], Tensor], chance: Callable[[float], Tensor]) -> Tensor:
    """Contrast, brightness, saturation and hue: the shape part is to know the thing in every colour."""
    mean = x.mean((2, 3), keepdim=True)
    x = (x - mean) * between(0.6, 1.4)[:, None, None, None] + mean + between(-0.3, 0.3)[:, None, None, None]
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * between(0.0, 1.5)[:, None, None, None]
    hue = between(-math.pi, math.pi) * torch.where(chance(0.6), 1.0, 0.1)
    turn = torch.eye(3) + torch.sin(hue)[:, None, None] * _TURN + (1 - torch.cos(hue))[:, None, None] * (_TURN @ _TURN)
    return torch.einsum("nij,njhw->nihw", turn, x).clamp(-1, 1)


def _hide(x: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    side = x.shape[2]
    for i in torch.nonzero(hidden).flatten().tolist():
        u = torch.rand(7, generator=generator)
        height, width = (int(side * (0.15 + 0.25 * v)) for v in u[:2].tolist())
        top, left = int((side - height) * u[2]), int((side - width) * u[3])
        x[i, :, top : top + height, left : left + width] = (u[4:7] * 2 - 1)[:, None, None]
    return x
