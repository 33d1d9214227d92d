"""A server as it is usually written in Python, for `npm run bench:serve`: FastAPI, PyTorch and Pillow.

fastapi_server.py probe                   { missing }: packages that are not there
fastapi_server.py MODEL WEIGHTS PORT      serves POST /classify with a JPEG as its body
"""
import importlib.util
import io
import json
import sys

SIDES = {"se_resnet50": 224, "se_resnet20": 32}


def serve(model, weights, port):
    import fastapi
    import numpy
    import torch
    import uvicorn
    from fastapi.concurrency import run_in_threadpool
    from PIL import Image

    import se_models

    # It warns at each convolution where the processor is not one of NNPACK's.
    torch.backends.nnpack.set_flags(False)
    network = se_models.load(model, weights)
    side = SIDES[model]
    app = fastapi.FastAPI()

    @torch.inference_mode()
    def classify(body):
        picture = Image.open(io.BytesIO(body)).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
        scores = network(pixels[None].float() / 255).softmax(1)[0]
        best = scores.topk(5)
        return [{"index": index, "score": score} for score, index in zip(*(part.tolist() for part in best))]

    @app.post("/classify")
    async def answer(request: fastapi.Request):
        return await run_in_threadpool(classify, await request.body())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def main():
    if sys.argv[1] == "probe":
        wanted = {"fastapi": "fastapi", "uvicorn": "uvicorn", "PIL": "pillow", "numpy": "numpy"}
        missing = [name for module, name in wanted.items() if importlib.util.find_spec(module) is None]
        print(json.dumps({"missing": " and ".join(missing)}))
    else:
        serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))


main()
