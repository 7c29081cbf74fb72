"""Trains the shape network: cross-entropy, supervised contrast of categories, and instance contrast of two views."""

# Checked with torch installed and without it, where its names are Any.
# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False
# mypy: warn-return-any=False, warn-unused-ignores=False

import copy
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.training.image_encoder.augment import augment
from workers.training.image_encoder.model import EMBED_DIM, INPUT_SIDE, TEMPERATURE, ShapeNet


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of training with its own batches and its own rise and fall of the learning rate."""

    epochs: int
    photos_per_batch: int
    drawings_per_batch: int
    learning_rate: float
    warm_epochs: int


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that, with the data, decides the weights (up to the order of floating-point sums)."""

    seed: int = 7
    stages: tuple[Stage, ...] = (
        Stage(epochs=80, photos_per_batch=128, drawings_per_batch=0, learning_rate=3e-3, warm_epochs=3),
        Stage(epochs=20, photos_per_batch=96, drawings_per_batch=32, learning_rate=1e-3, warm_epochs=1),
    )
    drawings_per_kind: int = 120
    widths: tuple[int, ...] = (24, 40, 80, 144)
    depths: tuple[int, ...] = (1, 1, 1)
    weight_decay: float = 0.05
    category_contrast: float = 0.5
    instance_contrast: float = 0.3
    averaging: float = 0.998
    colours: int = 384


class Heads(nn.Module):
    """What the losses need and the pack does not: a classifier, and a small projection for the instance loss."""

    def __init__(self, features: int, kinds: int) -> None:
        super().__init__()
        self.classify = nn.Linear(EMBED_DIM, kinds)
        self.instance = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 64))


def train_shape(
    photos: tuple[Tensor, Tensor],
    drawings: tuple[Tensor, Tensor],
    kinds: int,
    recipe: Recipe,
    folder: Path,
    report: Callable[[str], None],
    *,
    first: int = 0,
) -> ShapeNet:
    """Train on (uint8[n, 3, s, s], int64[n]) pairs; returns the running average of the weights, in eval mode.

    Stage k begins from the average in `folder`/stage-k.pt and writes its own to stage-(k+1).pt, every ten epochs and
    at its end; `first` begins with that stage.
    """
    torch.manual_seed(recipe.seed + first)
    generator = torch.Generator().manual_seed(recipe.seed + first)
    net = ShapeNet(recipe.widths, recipe.depths)
    for number in range(first, len(recipe.stages)):
        if number > 0:
            net.load_state_dict(torch.load(folder / f"stage-{number}.pt", weights_only=True))
        heads = Heads(recipe.widths[-1], kinds)
        checkpoint = folder / f"stage-{number + 1}.pt"
        _run(net, heads, photos, drawings, recipe, recipe.stages[number], generator, checkpoint, report)
    net.load_state_dict(torch.load(folder / f"stage-{len(recipe.stages)}.pt", weights_only=True))
    return net.eval()


def _run(
    net: ShapeNet,
    heads: Heads,
    photos: tuple[Tensor, Tensor],
    drawings: tuple[Tensor, Tensor],
    recipe: Recipe,
    stage: Stage,
    generator: torch.Generator,
    checkpoint: Path,
    report: Callable[[str], None],
) -> None:
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net).eval()
    parameters = [*net.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=stage.learning_rate,
    )
    steps = len(photos[0]) // stage.photos_per_batch
    total, warm = stage.epochs * steps, stage.warm_epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1.0, t / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, t / total)))
    )
    for epoch in range(stage.epochs):
        net.train()
        order = torch.randperm(len(photos[0]), generator=generator)
        losses = torch.zeros(3)
        for step in range(steps):
            some = order[step * stage.photos_per_batch : (step + 1) * stage.photos_per_batch]
            drawn = torch.randint(len(drawings[0]), (stage.drawings_per_batch,), generator=generator)
            pixels = torch.cat([photos[0][some], drawings[0][drawn]]).float() / 127.5 - 1
            labels = torch.cat([photos[1][some], drawings[1][drawn]])
            parts = _losses(net, heads, pixels, labels, generator)
            loss = parts[0] + recipe.category_contrast * parts[1] + recipe.instance_contrast * parts[2]
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            schedule.step()
            losses += torch.stack(parts).detach() / steps
            _follow(average, net, min(recipe.averaging, (epoch * steps + step + 1) / (epoch * steps + step + 10)))
        report(f"epoch {epoch + 1}/{stage.epochs}: " + " ".join(f"{v:.3f}" for v in losses.tolist()))
        if epoch % 10 == 9 or epoch + 1 == stage.epochs:
            torch.save(average.state_dict(), checkpoint)


def _losses(net: ShapeNet, heads: Heads, pixels: Tensor, labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    views = torch.cat([augment(pixels, INPUT_SIDE, generator), augment(pixels, INPUT_SIDE, generator)])
    kinds = labels.repeat(2)
    with torch.autocast("cpu", torch.bfloat16):
        rows, pooled = net(views.contiguous(memory_format=torch.channels_last))
    rows = rows.float()
    classes = functional.cross_entropy(heads.classify(rows * 16), kinds, label_smoothing=0.1)
    others = ~torch.eye(len(rows), dtype=torch.bool)
    # Khosla et al. 2020, "Supervised contrastive learning", the loss with the mean outside the logarithm.
    near = (rows @ rows.T / TEMPERATURE).masked_fill(~others, -1e4).log_softmax(1)
    same = (kinds[:, None] == kinds[None]) & others
    category = -(near * same).sum(1).div(same.sum(1).clamp(min=1)).mean()
    # Chen et al. 2020, SimCLR's NT-Xent.
    points = functional.normalize(heads.instance(pooled.float()), dim=1)
    near = (points @ points.T / TEMPERATURE).masked_fill(~others, -1e4)
    instance = functional.cross_entropy(near, torch.arange(len(rows)).roll(len(pixels)))
    return [classes, category, instance]


@torch.no_grad()
def _follow(average: ShapeNet, net: ShapeNet, keep: float) -> None:
    """Move the running average of weights and statistics towards the network."""
    for old, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.mul_(keep).add_(new, alpha=1 - keep)
        else:
            old.copy_(new)
