/** What a server counts and times, and what of it and of the library's memory is read at `/metrics`. */
import { memory } from '../tensor/runtime';
import type { ItemTimes } from '../vision/pipeline';
import { Counter, gauge, Histogram, type MetricFamily } from './instruments';
import type { AccessRecord } from './access-record';
import type { ModelTable, ServedModel } from './model-table';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

export class Metrics {
  readonly #requests = new Counter('senet_requests_total', 'Requests answered, by route and status.');
  readonly #errors = new Counter('senet_errors_total', 'Requests that failed, by the code of their error.');
  readonly #duration = new Histogram('senet_request_seconds', 'From a request to its answer.', SECONDS);
  readonly #images = new Counter('senet_images_total', 'Images that went through a network.');
  readonly #batches = new Histogram('senet_batch_images', 'Images of each batch.', BATCHES);
  readonly #steps = {
    queue: new Histogram('senet_queue_seconds', 'From acceptance until an image is taken up.', SECONDS),
    decode: new Histogram('senet_decode_seconds', 'Reading and decoding an image.', SECONDS),
    preprocess: new Histogram('senet_preprocess_seconds', "From pixels to the network's input.", SECONDS),
    wait: new Histogram('senet_wait_seconds', 'Ready, until its batch began.', SECONDS),
    network: new Histogram('senet_network_seconds', 'The batch of an image in the network.', SECONDS),
  };
  #running = 0;

  begin(): void {
    this.#running++;
  }

  end({ route, status, milliseconds, code }: AccessRecord): void {
    this.#running--;
    this.#requests.add({ route, status: String(status) });
    if (code !== undefined) this.#errors.add({ code: code ?? 'other' });
    this.#duration.observe({ route }, milliseconds / 1000);
  }

  image({ name, version }: ServedModel, times: ItemTimes): void {
    const labels = { model: name, version };
    this.#images.add(labels);
    if (times.place === 0) this.#batches.observe(labels, times.batch);
    for (const [step, histogram] of Object.entries(this.#steps))
      histogram.observe(labels, times[step as 'queue'] / 1000);
  }

  families(models: ModelTable, ready: boolean, bodyBytes: number): MetricFamily[] {
    const used = memory();
    const served = models.ready.map(({ name, version, classifier }) => ({
      ...{ labels: { model: name, version }, queue: classifier.queue },
    }));
    return [
      ...[this.#requests.family, this.#errors.family, this.#duration.family],
      gauge('senet_requests_running', 'Requests that are not yet answered.', [[{}, this.#running]]),
      ...[this.#images.family, this.#batches.family],
      ...Object.values(this.#steps).map(({ family }) => family),
      gauge(
        'senet_queue_waiting',
        'Images that are accepted and not in a batch that runs.',
        served.map(({ labels, queue }) => [labels, queue.waiting]),
      ),
      gauge(
        'senet_queue_running',
        'Images in a batch that runs.',
        served.map(({ labels, queue }) => [labels, queue.running]),
      ),
      gauge(
        'senet_queue_limit',
        'Images that may wait and run.',
        served.map(({ labels, queue }) => [labels, queue.limit]),
      ),
      gauge(
        'senet_model_ready',
        'Whether a model answers (1) or not (0).',
        models.all.map(({ name, version, state }) => [{ model: name, version }, state === 'READY' ? 1 : 0]),
      ),
      gauge('senet_ready', 'Whether the server wants requests (1) or not (0).', [[{}, ready ? 1 : 0]]),
      gauge('senet_body_bytes', 'Bytes of the bodies of requests in memory.', [[{}, bodyBytes]]),
      gauge('senet_tensors', 'Tensors that were neither disposed nor collected.', [[{}, used.tensors]]),
      gauge('senet_memory_bytes', 'Memory of tensors and modules.', [[{}, used.bytes]]),
      gauge('senet_memory_cached_bytes', 'Freed memory that is kept for reuse.', [[{}, used.cachedBytes]]),
      gauge('senet_device_memory_bytes', 'Memory of tensors on CUDA devices.', [[{}, used.deviceBytes]]),
      gauge('senet_jobs_queued', 'Jobs that wait for a worker.', [[{}, used.jobs.queued]]),
      gauge('senet_jobs_running', 'Jobs that run.', [[{}, used.jobs.running]]),
      gauge('process_resident_memory_bytes', 'Resident memory of the process.', [
        [{}, process.memoryUsage.rss()],
      ]),
    ];
  }
}
