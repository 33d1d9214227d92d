"""The clients of Triton and KServe against a server of ours: what they ask, and what they make of the answers.

    npx senet-torch serve --port 8080 --grpc-port 8081
    python scripts/checks/protocol-clients.py 127.0.0.1:8080 127.0.0.1:8081

Needs Python with `pip install 'tritonclient[http,grpc]' kserve`; a client that is not there is said to be missing. The
server is to serve the bundled network (`se_resnet20`). Exits with 1 where an answer is wrong, and with 2 without any client.
"""

import asyncio
import pathlib
import subprocess
import sys

IMAGES = pathlib.Path(__file__).resolve().parents[2] / 'assets' / 'images'
MODEL = 'se_resnet20'
BAG, SANDAL = (IMAGES / name for name in ('18-bag.png', '08-sandal.png'))


class Report:
    """Each thing that was seen, as a line."""

    def __init__(self):
        self.wrong = 0

    def see(self, what, holds, value=''):
        self.wrong += not holds
        print(f'  {"ok   " if holds else "WRONG"} {what} {value}'.rstrip(), flush=True)

    def begin(self, client):
        print(client, flush=True)


def triton(report, module, address, kind):
    """What both of Triton's clients have, and do in their own ways."""
    import numpy

    errors = __import__('tritonclient.utils', fromlist=['InferenceServerException'])
    client = module.InferenceServerClient(address)
    over_http = kind == 'http'
    as_json = {} if over_http else {'as_json': True}
    report.see('is_server_live, is_server_ready', client.is_server_live() and client.is_server_ready())
    report.see('is_model_ready', client.is_model_ready(MODEL) and client.is_model_ready(MODEL, '1'))
    report.see('is_model_ready of none', not ready_or_refused(client, errors))
    metadata = client.get_server_metadata(**as_json)
    report.see('get_server_metadata', metadata['name'] == 'senet-torch', metadata['extensions'])
    model = client.get_model_metadata(MODEL, **as_json)
    report.see('get_model_metadata', model['inputs'][0]['name'] == 'input', [one['name'] for one in model['outputs']])

    encoded = numpy.array([BAG.read_bytes(), SANDAL.read_bytes()], dtype=numpy.object_)
    pictures = module.InferInput('input', [2], 'BYTES')
    pictures.set_data_from_numpy(encoded)
    best = module.InferRequestedOutput('scores', class_count=2)
    answer = client.infer(MODEL, [pictures], outputs=[best], request_id='seven')
    told = [row[0].decode() for row in answer.as_numpy('scores')]
    report.see('infer: images, classification', [one.split(':')[2] for one in told] == ['Bag', 'Sandal'], told)

    answer = client.infer(MODEL, [pictures])
    scores, logits = answer.as_numpy('scores'), answer.as_numpy('logits')
    report.see('infer: all outputs', scores.shape == (2, 10) and logits.shape == (2, 10), scores.argmax(1).tolist())
    report.see('infer: scores are softmax', bool(numpy.allclose(scores.sum(1), 1, atol=1e-5)))

    tensor = module.InferInput('input', [3, 3, 32, 32], 'FP32')
    tensor.set_data_from_numpy(numpy.zeros((3, 3, 32, 32), numpy.float32))
    report.see('infer: FP32', client.infer(MODEL, [tensor]).as_numpy('scores').shape == (3, 10))
    pixels = module.InferInput('input', [1, 28, 28, 1], 'UINT8')
    pixels.set_data_from_numpy(numpy.zeros((1, 28, 28, 1), numpy.uint8))
    report.see('infer: UINT8', client.infer(MODEL, [pixels]).as_numpy('scores').shape == (1, 10))

    if over_http:
        for algorithm in ('gzip', 'deflate'):
            answer = client.infer(MODEL, [pictures], request_compression_algorithm=algorithm)
            report.see(f'infer: a body by {algorithm}', answer.as_numpy('scores').argmax(1).tolist() == [8, 5])
        text = module.InferInput('input', [1, 3, 32, 32], 'FP32')
        text.set_data_from_numpy(numpy.zeros((1, 3, 32, 32), numpy.float32), binary_data=False)
        plain = module.InferRequestedOutput('scores', binary_data=False)
        answer = client.infer(MODEL, [text], outputs=[plain])
        report.see('infer: JSON alone', answer.as_numpy('scores').shape == (1, 10))
        index = client.get_model_repository_index()
        report.see('get_model_repository_index', index[0]['state'] == 'READY', index[0]['name'])
        calls = [client.async_infer(MODEL, [pictures], outputs=[best]) for _ in range(8)]
        report.see('async_infer', all(one.get_result().as_numpy('scores').shape == (2, 2) for one in calls))
    for what, model_name, wrong in (
        ('of no model', 'other', pictures),
        ('of a wrong datatype', MODEL, module.InferInput('input', [1], 'INT64')),
    ):
        if wrong is not pictures:
            wrong.set_data_from_numpy(numpy.zeros((1,), numpy.int64))
        try:
            client.infer(model_name, [wrong])
            report.see(f'infer {what}', False, 'was answered')
        except errors.InferenceServerException as error:
            report.see(f'infer {what}', True, f'[{error.status()}] {error.message()}'[:110])
    client.close()


def ready_or_refused(client, errors):
    try:
        return client.is_model_ready('other')
    except errors.InferenceServerException:
        return False


async def kserve(report, http, grpc):
    import numpy
    from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig
    from kserve.protocol.infer_type import InferInput, InferRequest

    zeros = numpy.zeros((2, 3, 32, 32), numpy.float32)

    def request(binary):
        tensor = InferInput('input', [2, 3, 32, 32], 'FP32')
        tensor.set_data_from_numpy(zeros, binary_data=binary)
        return InferRequest(model_name=MODEL, infer_inputs=[tensor])

    report.begin('kserve, REST')
    client = InferenceRESTClient(RESTConfig(protocol='v2'))
    url = f'http://{http}'
    report.see('is_server_live', await client.is_server_live(url))
    report.see('is_server_ready', await client.is_server_ready(url))
    report.see('is_model_ready', await client.is_model_ready(url, MODEL))
    for binary in (False, True):
        answer = await client.infer(url, request(binary), model_name=MODEL)
        shapes = [one.as_numpy().shape for one in answer.outputs]
        report.see(f'infer: {"binary" if binary else "JSON"}', shapes == [(2, 10), (2, 10)], answer.model_name)
    try:
        await client.infer(url, request(False), model_name='other')
        report.see('infer of no model', False, 'was answered')
    except Exception as error:  # of httpx, whose classes are not ours to name
        report.see('infer of no model', '404' in str(error), str(error).splitlines()[0][:110])
    await client.close()

    if grpc is None:
        return
    report.begin('kserve, gRPC')
    client = InferenceGRPCClient(url=grpc)
    report.see('is_server_live, is_server_ready', await client.is_server_live() and await client.is_server_ready())
    report.see('is_model_ready', await client.is_model_ready(MODEL))
    for binary in (False, True):
        answer = await client.infer(request(binary))
        shapes = [one.as_numpy().shape for one in answer.outputs]
        report.see(f'infer: {"raw" if binary else "typed"} contents', shapes == [(2, 10), (2, 10)], answer.model_name)
    await client.close()


def triton_http(report, http, _grpc):
    import tritonclient.http as module

    report.begin('tritonclient, HTTP')
    triton(report, module, http, 'http')


def triton_grpc(report, _http, grpc):
    import tritonclient.grpc as module

    report.begin('tritonclient, gRPC')
    triton(report, module, grpc, 'grpc')


def both_of_kserve(report, http, grpc):
    asyncio.run(kserve(report, http, grpc))


CLIENTS = {'tritonclient.http': triton_http, 'tritonclient.grpc': triton_grpc, 'kserve': both_of_kserve}


def main():
    http, grpc, one = (sys.argv[1:] + [None, None, None])[:3]
    if http is None:
        sys.exit(__doc__)
    if one is None:
        # A process for each: they bring the same messages of gRPC, which one process may have once.
        names = [name for name in CLIENTS if grpc is not None or name != 'tritonclient.grpc']
        codes = [subprocess.run([sys.executable, __file__, http, grpc or '', name]).returncode for name in names]
        sys.exit(1 if 1 in codes else 0 if 0 in codes else 2)
    report = Report()
    try:
        CLIENTS[one](report, http, grpc or None)
    except ImportError as error:
        print(f'{one}: not here ({error})')
        sys.exit(2)
    sys.exit(1 if report.wrong > 0 else 0)


if __name__ == '__main__':
    main()
