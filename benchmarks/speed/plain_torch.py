"""What `lightly_contender` takes from lightly, written plainly, for where it is not installed: the same work."""

from __future__ import annotations

import torch
from torch import nn
from torchvision import transforms


class SimCLRTransform:
    """Two views of a picture, without blur: crop, mirror, colour jitter, grey."""

    def __init__(self, input_size: int, gaussian_blur: float = 0.0):
        if gaussian_blur:
            raise ValueError(f"gaussian_blur = {gaussian_blur}: must be 0 here")
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(input_size, scale=(0.08, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __call__(self, picture):
        return [self.view(picture), self.view(picture)]


class SimCLRProjectionHead(nn.Sequential):
    """Two dense layers, each with batch normalisation."""

    def __init__(self, features: int, hidden: int, width: int):
        super().__init__(
            nn.Linear(features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width, bias=False),
            nn.BatchNorm1d(width),
        )


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross entropy over two views (Chen et al. 2020, arXiv:2002.05709, eq. 1)."""

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, first, second):
        z = nn.functional.normalize(torch.cat([first, second]), dim=1)
        logits = (z @ z.T / self.temperature).fill_diagonal_(float("-inf"))
        others = torch.arange(len(z), device=z.device).roll(len(first))
        return nn.functional.cross_entropy(logits, others)
