/** Images of a data set as a network takes them, one after the other: what a calibration is shown. */
import type { Preprocessing } from '../models/preprocessing-record';
import type { Tensor } from '../tensor/tensor';
import { preprocess } from '../vision/preprocessing';
import { checkSample, type Dataset } from './dataset';

/** `count` images, evenly spread over the data set. Each is disposed when the next is asked for. */
export async function* networkInputs(
  dataset: Dataset,
  count: number,
  preprocessing: Preprocessing,
  signal: AbortSignal | undefined,
): AsyncGenerator<Tensor> {
  for (let place = 0; place < count; place++) {
    const index = Math.floor((place * dataset.length) / count);
    const { image } = checkSample(await dataset.get(index), index);
    const made = [image];
    try {
      made.push(image.unsqueeze(0));
      const input = await preprocess(made[1] as Tensor, preprocessing, signal);
      made.push(input);
      yield input;
    } finally {
      for (const done of made) done.dispose();
    }
  }
}
