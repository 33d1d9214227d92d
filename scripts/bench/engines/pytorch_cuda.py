"""PyTorch's side of `npm run bench:cuda`: times one engine for one model, and prints one line of JSON.

pytorch_cuda.py JOB    JOB is the JSON that cuda.js makes. Weights are drawn: times do not depend on them.
"""
import json
import statistics
import sys
import time

import torch

import se_models

job = json.loads(sys.argv[1])
engine, dtype = job["engine"].split("-")
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
torch.backends.cudnn.benchmark = True
dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
torch.manual_seed(0)
network = se_models.MODELS[job["model"]]().eval().cuda().to(dtype=dtype, memory_format=torch.channels_last)


def graph_of(x):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            network(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network(x)

    def run():
        graph.replay()
        return output

    return run


def bind(x):
    if engine == "eager":
        return lambda: network(x)
    if engine == "graph":
        return graph_of(x)
    torch._dynamo.reset()
    mode = "max-autotune" if engine == "autotune" else "reduce-overhead"
    compiled = torch.compile(network, mode=mode, dynamic=False)
    return lambda: compiled(x)


results = []
with torch.no_grad():
    for size in job["batches"]:
        x = torch.randn(size, 3, job["side"], job["side"], device="cuda").to(dtype=dtype, memory_format=torch.channels_last)
        started = time.perf_counter()
        run = bind(x)
        for _ in range(3):
            run().float().cpu()
        first = 1000 * (time.perf_counter() - started)
        answers = []
        until = time.perf_counter() + job["seconds"] / 2
        while len(answers) < 5 or time.perf_counter() < until:
            started = time.perf_counter()
            run().float().cpu()
            answers.append(1000 * (time.perf_counter() - started))
        torch.cuda.synchronize()
        runs = 0
        started = time.perf_counter()
        while runs < 16 or time.perf_counter() - started < job["seconds"]:
            run()
            runs += 1
            if runs % 16 == 0:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        results.append({
            "size": size,
            "ms": 1000 * (time.perf_counter() - started) / runs,
            "answer": statistics.median(answers),
            "firstMs": first,
        })
print("\n" + json.dumps({"batches": results}))
