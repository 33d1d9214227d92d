"""PyTorch's side of the training steps of `npm run bench:cuda`, and prints one line of JSON.

pytorch_cuda_training.py JOB    JOB is the JSON that cuda.js makes; `engine` is eager-DTYPE or compile-DTYPE, channels-last
"""
import json
import sys
import time

import torch

import se_models

job = json.loads(sys.argv[1])
engine, dtype = job["engine"].split("-")
torch.backends.cudnn.allow_tf32 = True  # PyTorch's default, and this library's
torch.backends.cudnn.benchmark = True
torch.manual_seed(0)
network = se_models.MODELS[job["model"]]().train().cuda().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
criterion = torch.nn.CrossEntropyLoss()
scaler = torch.amp.GradScaler("cuda", enabled=dtype == "float16")
x = torch.randn(job["size"], 3, job["side"], job["side"], device="cuda").to(memory_format=torch.channels_last)
with torch.no_grad():
    classes = network(x).shape[1]
labels = torch.arange(job["size"], device="cuda") % classes
forward = torch.compile(network, dynamic=False) if engine == "compile" else network


def step():
    optimizer.zero_grad()
    with torch.autocast("cuda", getattr(torch, dtype), enabled=dtype != "float32"):
        loss = criterion(forward(x), labels)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss


losses = [step().item()]
for _ in range(5):
    step()
torch.cuda.synchronize()
steps = 0
started = time.perf_counter()
while steps < 16 or time.perf_counter() - started < job["seconds"]:
    loss = step()
    steps += 1
    if steps % 8 == 0:
        torch.cuda.synchronize()
losses.append(loss.item())
torch.cuda.synchronize()
ms = 1000 * (time.perf_counter() - started) / steps
print("\n" + json.dumps({"ms": ms, "loss": losses, "memory": torch.cuda.memory_reserved()}))
