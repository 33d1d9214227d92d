"""PyTorch's side of training.js: `training.py JOB` trains for a while and prints one line of JSON.

What a PyTorch script does: a Dataset whose items are cropped, flipped and normalised, a DataLoader, SGD, an eager loop.
"""
import json
import random
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

import se_models


class Pixels(Dataset):
    """uint8 images of a file; random crop (with padding), random horizontal flip, /255, normalise."""

    def __init__(self, job):
        with open(job["pixels"], "rb") as file:
            pixels = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        self.images = pixels.view(-1, 3, job["stored"], job["stored"])
        with open(job["labels"], "rb") as file:
            self.labels = list(file.read())
        self.side, self.padding = job["side"], job["padding"]
        self.mean = torch.tensor(job["mean"]).view(3, 1, 1)
        self.std = torch.tensor(job["std"]).view(3, 1, 1)

    def __len__(self):
        return len(self.labels)

    def plain(self, index):
        return (self.images[index, :, : self.side, : self.side].float() / 255 - self.mean) / self.std

    def __getitem__(self, index):
        image = self.images[index]
        if self.padding:
            image = torch.nn.functional.pad(image, [self.padding] * 4)
        free = image.shape[-1] - self.side
        top, left = random.randint(0, free), random.randint(0, free)
        image = image[:, top : top + self.side, left : left + self.side]
        if random.random() < 0.5:
            image = image.flip(-1)
        image = image.float().div_(255).sub_(self.mean).div_(self.std)
        return image, self.labels[index]


def peak_megabytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    layout = torch.channels_last if job["channelsLast"] else torch.contiguous_format
    network = se_models.load(job["model"], job["weights"]).train().to(memory_format=layout)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=job["lr"], momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    criterion = torch.nn.CrossEntropyLoss()

    def step(images, labels):
        optimizer.zero_grad()
        images = images.contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=job["bfloat16"]):
            loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    pixels = Pixels(job)
    first = range(job["batch"])
    loss = step(torch.stack([pixels.plain(i) for i in first]), torch.tensor([pixels.labels[i] for i in first]))
    loader = DataLoader(
        pixels,
        batch_size=job["batch"],
        shuffle=True,
        drop_last=True,
        num_workers=job["workers"],
        persistent_workers=job["workers"] > 0,
    )
    started, steps = None, 0
    while True:
        for images, labels in loader:
            step(images, labels)
            steps += 1
            now = time.perf_counter()
            if started is None:
                if steps == job["warmUpSteps"]:
                    started, steps = now, 0
            elif now - started >= job["seconds"] and steps >= 3:
                seconds = (now - started) / steps
                print("\n" + json.dumps({"loss": loss, "secondsPerStep": seconds, "peak": peak_megabytes()}))
                return


main()
