"""The three networks that are always benchmarked as plain PyTorch modules, so that the comparison needs neither the
original package nor torchvision; others are timm's own. Children are named as in the original, so its state-dict keys load; weights come from a file, never
from here. Evaluation mode only: no auxiliary head, no dropout.

Sources: Hu, Shen, Sun, "Squeeze-and-Excitation Networks" (CVPR 2018); He et al., "Deep Residual Learning" (CVPR 2016);
Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016).
"""
import sys

import torch
from torch import nn
from torch.nn import functional as F


class SELayer(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = channels // reduction
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        n, c = x.shape[:2]
        scale = self.fc(self.avg_pool(x).view(n, c)).view(n, c, 1, 1)
        return x * scale


class ResidualBlock(nn.Module):
    """conv + bn (+ ReLU) for each of `convolutions` (in, out, kernel size, stride), then SE, then the residual sum."""

    def __init__(self, convolutions, downsample):
        super().__init__()
        self.count = len(convolutions)
        for i, (width_in, width_out, kernel_size, stride) in enumerate(convolutions, 1):
            convolution = nn.Conv2d(width_in, width_out, kernel_size, stride, kernel_size // 2, bias=False)
            setattr(self, f"conv{i}", convolution)
            setattr(self, f"bn{i}", nn.BatchNorm2d(width_out))
        self.se = SELayer(convolutions[-1][1])
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        out = x
        for i in range(1, self.count + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.count:
                out = self.relu(out)
        out = self.se(out)
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def projection(width_in, width_out, stride):
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))


def stage(block, width_in, planes, count, stride):
    blocks = [block(width_in, planes, stride)]
    width = blocks[0].se.fc[2].out_features
    blocks += [block(width, planes, 1) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def bottleneck(width_in, planes, stride):
    width_out = 4 * planes
    changes = stride != 1 or width_in != width_out
    return ResidualBlock(
        [(width_in, planes, 1, 1), (planes, planes, 3, stride), (planes, width_out, 1, 1)],
        projection(width_in, width_out, stride) if changes else None,
    )


def cifar_block(width_in, planes, stride):
    return ResidualBlock(
        [(width_in, planes, 3, stride), (planes, planes, 3, 1)],
        projection(width_in, planes, stride) if width_in != planes else None,
    )


class SEResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = stage(bottleneck, 64, 64, 3, 1)
        self.layer2 = stage(bottleneck, 256, 128, 4, 2)
        self.layer3 = stage(bottleneck, 512, 256, 6, 2)
        self.layer4 = stage(bottleneck, 1024, 512, 3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SEResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(cifar_block, 16, 16, 3, 1)
        self.layer2 = stage(cifar_block, 16, 32, 3, 2)
        self.layer3 = stage(cifar_block, 32, 64, 3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ConvUnit(nn.Module):
    def __init__(self, width_in, width_out, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width_out, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """An Inception block: branches of convolutions side by side, concatenated over the channels.

    `branches`: for each branch what its input passes first (None, "average" or "max" pooling) and its units as
    (name, in, out, kernel size, stride, padding); a tuple of two units at the end of a branch is a fork.
    The stored SELayer is the original's: it has weights and is never called.
    """

    def __init__(self, width_in, branches):
        super().__init__()
        self.branches = []
        for pool, units in branches:
            names = []
            for unit in units:
                ends = unit if isinstance(unit[0], tuple) else (unit,)
                for name, *shape in ends:
                    self.add_module(name, ConvUnit(*shape))
                names.append([end[0] for end in ends])
            self.branches.append((pool, names))
        self.SELayer = SELayer(width_in)

    def forward(self, x):
        outputs = []
        for pool, names in self.branches:
            out = x
            if pool == "average":
                out = F.avg_pool2d(out, 3, 1, 1)
            elif pool == "max":
                out = F.max_pool2d(out, 3, 2)
            for ends in names:
                results = [getattr(self, name)(out) for name in ends]
                out = results[0] if len(results) == 1 else torch.cat(results, 1)
            outputs.append(out)
        return torch.cat(outputs, 1)


def mixed_5(width_in, pooled):  # 35 x 35
    return Mixed(width_in, [
        (None, [("branch1x1", width_in, 64, 1)]),
        (None, [("branch5x5_1", width_in, 48, 1), ("branch5x5_2", 48, 64, 5, 1, 2)]),
        (None, [("branch3x3dbl_1", width_in, 64, 1), ("branch3x3dbl_2", 64, 96, 3, 1, 1),
                ("branch3x3dbl_3", 96, 96, 3, 1, 1)]),
        ("average", [("branch_pool", width_in, pooled, 1)]),
    ])


def mixed_6a(width_in):  # to 17 x 17
    return Mixed(width_in, [
        (None, [("branch3x3", width_in, 384, 3, 2)]),
        (None, [("branch3x3dbl_1", width_in, 64, 1), ("branch3x3dbl_2", 64, 96, 3, 1, 1),
                ("branch3x3dbl_3", 96, 96, 3, 2)]),
        ("max", []),
    ])


def mixed_6(width):  # 17 x 17, 7 x 7 kernels split into rows and columns
    row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return Mixed(768, [
        (None, [("branch1x1", 768, 192, 1)]),
        (None, [("branch7x7_1", 768, width, 1), ("branch7x7_2", width, width, *row),
                ("branch7x7_3", width, 192, *column)]),
        (None, [("branch7x7dbl_1", 768, width, 1), ("branch7x7dbl_2", width, width, *column),
                ("branch7x7dbl_3", width, width, *row), ("branch7x7dbl_4", width, width, *column),
                ("branch7x7dbl_5", width, 192, *row)]),
        ("average", [("branch_pool", 768, 192, 1)]),
    ])


def mixed_7a(width_in):  # to 8 x 8
    return Mixed(width_in, [
        (None, [("branch3x3_1", width_in, 192, 1), ("branch3x3_2", 192, 320, 3, 2)]),
        (None, [("branch7x7x3_1", width_in, 192, 1), ("branch7x7x3_2", 192, 192, (1, 7), 1, (0, 3)),
                ("branch7x7x3_3", 192, 192, (7, 1), 1, (3, 0)), ("branch7x7x3_4", 192, 192, 3, 2)]),
        ("max", []),
    ])


def mixed_7(width_in):  # 8 x 8, two branches fork at their ends
    def fork(name, a, b):
        return ((f"{name}_{a}", 384, 384, (1, 3), 1, (0, 1)), (f"{name}_{b}", 384, 384, (3, 1), 1, (1, 0)))

    return Mixed(width_in, [
        (None, [("branch1x1", width_in, 320, 1)]),
        (None, [("branch3x3_1", width_in, 384, 1), fork("branch3x3", "2a", "2b")]),
        (None, [("branch3x3dbl_1", width_in, 448, 1), ("branch3x3dbl_2", 448, 384, 3, 1, 1),
                fork("branch3x3dbl", "3a", "3b")]),
        ("average", [("branch_pool", width_in, 192, 1)]),
    ])


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3, 1, 1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = mixed_5(192, 32), mixed_5(256, 64), mixed_5(288, 64)
        self.Mixed_6a, self.Mixed_6b = mixed_6a(288), mixed_6(128)
        self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = mixed_6(160), mixed_6(160), mixed_6(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = mixed_7a(768), mixed_7(1280), mixed_7(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SEInceptionV3(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Inception()

    def forward(self, x):
        return self.model(x)


MODELS = {"se_resnet50": SEResNet50, "se_resnet20": SEResNet20, "se_inception_v3": SEInceptionV3}


def timm_network(name):
    # Only where it is asked for, and not with this folder's pytorch.py in the way of what it imports.
    here = sys.path.pop(0)
    import timm

    sys.path.insert(0, here)
    return timm.create_model(name)


def load(name, weights):
    """The network with the weights of a torch.save file, every key of which it must have, for evaluation."""
    with torch.device("meta"):
        network = MODELS[name]() if name in MODELS else timm_network(name)
    network.load_state_dict(torch.load(weights, weights_only=True), assign=True)
    return network.eval()


def multiply_adds(network, shape):
    """Of the convolutions and linear layers that one forward of that shape calls."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            per_value = module.weight[0].numel()
        else:
            per_value = module.in_features
        total += output.numel() * per_value

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        network(torch.zeros(shape))
    for hook in hooks:
        hook.remove()
    return total
