"""PyTorch's side of `npm run bench`: one process does one thing for one model, and prints one line of JSON.

pytorch.py probe          { torch, export }: the version, and why networks can't be exported (null if they can)
pytorch.py export JOB     writes an ONNX file for each batch
pytorch.py quantize JOB   writes an int8 ONNX file (static, QDQ) beside each, calibrated on the largest batch
pytorch.py count JOB      { multiplyAdds } of one image
pytorch.py measure JOB    times the job's engine: { batches, instructions }, or { absent } if this machine can't run it
JOB is the JSON that inference.js makes; inputs and outputs are files of raw float32.
"""
import importlib.util
import json
import resource
import statistics
import sys
import time

import torch

import se_models


def read_input(job, batch):
    with open(batch["input"], "rb") as file:
        values = torch.frombuffer(bytearray(file.read()), dtype=torch.float32)
    return values.view(batch["size"], 3, job["side"], job["side"])


def probe():
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    quantize = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    return {
        "torch": torch.__version__,
        "export": " and ".join(missing) or None,
        "quantize": " and ".join(quantize) or None,
    }


def export(job):
    network = se_models.load(job["model"], job["weights"])
    for batch in job["batches"]:
        torch.onnx.export(
            network,
            (read_input(job, batch),),
            batch["onnx"],
            input_names=["x"],
            output_names=["logits"],
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    return {}


def quantize(job):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):
        """The images of the largest batch, as many at a time as the file takes."""

        def __init__(self, size):
            images = read_input(job, job["batches"][-1]).numpy()
            self.pieces = iter([{"x": images[at : at + size]} for at in range(0, len(images) - size + 1, size)])

        def get_next(self):
            return next(self.pieces, None)

    for batch in job["batches"]:
        prepared = batch["onnx"] + ".prepared"
        quant_pre_process(batch["onnx"], prepared)
        quantize_static(
            prepared,
            batch["onnxInt8"],
            Reader(batch["size"]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return {}


def count(job):
    network = se_models.load(job["model"], job["weights"])
    return {"multiplyAdds": se_models.multiply_adds(network, (1, 3, job["side"], job["side"]))}


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def repeat(run, seconds, least_runs):
    """Runs until the time is over, and at least so often; gives the milliseconds of each run and the last output."""
    milliseconds = []
    until = time.perf_counter() + seconds
    while len(milliseconds) < least_runs or time.perf_counter() < until:
        started = time.perf_counter()
        output = run()
        milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds, output


def make_runner(job):
    """What turns an input into a function that runs the engine on it."""
    engine = job["engine"]
    network = se_models.load(job["model"], job["weights"])
    dtype = torch.bfloat16 if "bfloat16" in engine else torch.float32
    layout = torch.contiguous_format if engine == "pytorch" else torch.channels_last
    network = network.to(dtype=dtype, memory_format=layout)
    if engine.startswith("inductor"):
        from torch._inductor import config

        config.freezing = True
        network = torch.compile(network, backend="inductor", dynamic=False)

    def bind(x):
        x = x.to(dtype=dtype, memory_format=layout)
        return lambda: network(x)

    return bind


def measure(job):
    torch.set_num_threads(job["threads"])
    bind = make_runner(job)
    results = []
    with torch.no_grad():
        for batch in job["batches"]:
            run = bind(read_input(job, batch))
            try:
                repeat(run, job["warmUpSeconds"], 2)
            except Exception as error:
                if not job["engine"].startswith("inductor"):
                    raise
                reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                return {"absent": f"torch.compile does not work here: {reason.strip()}"}
            faults = page_faults()
            milliseconds, output = repeat(run, job["seconds"], job["leastRuns"])
            faults = page_faults() - faults
            with open(batch["output"], "wb") as file:
                file.write(output.float().contiguous().numpy().tobytes())
            results.append({
                "size": batch["size"],
                "milliseconds": statistics.median(milliseconds),
                "runs": len(milliseconds),
                "pageFaults": faults / len(milliseconds),
            })
    return {"batches": results, "instructions": instructions(job)}


def instructions(job):
    """What oneDNN has for this type, in the names of our kernels where it is a matrix unit."""
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "amx_bf16 (oneDNN)" if has_tiles and "bfloat16" in job["engine"] else torch.backends.cpu.get_cpu_capability()


def main():
    command, *rest = sys.argv[1:]
    if command == "probe":
        answer = probe()
    else:
        answer = {"export": export, "quantize": quantize, "count": count, "measure": measure}[command](json.loads(rest[0]))
    print("\n" + json.dumps(answer))


main()
