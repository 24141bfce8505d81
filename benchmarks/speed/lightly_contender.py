"""SimCLR as a user of lightly writes it: its transform, head and loss, a network of torchvision, a plain loop.

Runs in an environment of its own, which `python -m benchmarks.speed` makes. Where there is no lightly,
plain equivalents stand in for it.
"""

from __future__ import annotations

import contextlib

import torch
import torchvision
from torch import nn

from benchmarks.speed.turns import serve, work

try:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
except ModuleNotFoundError:
    from benchmarks.speed.plain_torch import NTXentLoss, SimCLRProjectionHead, SimCLRTransform

asked = work()
size, batch, rows = asked["size"], asked["batch"], asked["rows"]
torch.manual_seed(0)
half = asked["precision"] == "bfloat16"
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pixels = torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8)


def network() -> tuple[nn.Module, int]:
    """ResNet-18 with the stem for small images, or the four convolutions and one dense layer of the recipe."""
    if asked["encoder"] == "resnet18":
        encoder = torchvision.models.resnet18(num_classes=1)
        encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        encoder.maxpool, encoder.fc = nn.Identity(), nn.Identity()
        return encoder, 512
    width, stack, channels = asked["width"], [], 3
    for _ in range(4):
        stack += [nn.Conv2d(channels, width, 3, stride=2), nn.ReLU()]
        channels = width
    return nn.Sequential(*stack, nn.Flatten(), nn.LazyLinear(width), nn.ReLU()), width


class Views(torch.utils.data.Dataset):
    """Two views of each image: by lightly's transform of a picture, or twice the picture as it is."""

    def __init__(self) -> None:
        self.transform = SimCLRTransform(input_size=size, gaussian_blur=0.0) if asked["views"] else None
        self.to_picture = torchvision.transforms.ToPILImage()

    def __len__(self) -> int:
        return rows

    def __getitem__(self, index: int):
        if self.transform is None:
            image = pixels[index].float() / 255
            return image, image
        return self.transform(self.to_picture(pixels[index]))


def augmentation():
    """Two views of each image, and nothing else."""
    data = Views()

    def train(steps):
        for index in range(steps * batch):
            data[index % rows]

    return train


def pretraining():
    """A loop over a loader, in channels-last order as PyTorch advises for convolutions."""
    encoder, features = network()
    model = nn.Sequential(encoder, SimCLRProjectionHead(features, features, 128)).to(device)
    # the dense layer learns its width
    model(torch.zeros(2, 3, size, size, device=device))
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loss_of = NTXentLoss(temperature=0.1)
    workers = asked["workers"] if asked["views"] else 0
    loader = torch.utils.data.DataLoader(
        Views(), batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    halved = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def train(steps):
        done = 0
        while done < steps:
            for first, second in loader:
                both = torch.cat([first, second]).to(device, memory_format=torch.channels_last)
                with halved:
                    embeddings = model(both)
                loss = loss_of(*embeddings.float().chunk(2))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break
        loss.item()

    return train


serve(augmentation() if asked["what"] == "augmentation" else pretraining())
