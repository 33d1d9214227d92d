/** The report of a recipe's run: its facts, its settings, the machine, and the worst mistakes as pictures. */
import path from 'node:path';

import { writeAtomically } from '../../checkpoint/atomic-file';
import { Subset, type Dataset } from '../../data/dataset';
import { ImageFolder } from '../../data/image-folder';
import type { Preprocessing } from '../../models/preprocessing-record';
import type { Module } from '../../nn/module';
import type { Evaluation } from '../evaluation';
import type { ReportedMistake } from '../evaluation-sections';
import { machineFacts } from '../machine-facts';
import { pictureOf } from '../pictures';
import { renderReport } from '../report';
import { duration, significant } from '../report-page';
import type { TrainingResult } from '../trainer';
import { count, percent } from '../words';
import type { TrainingDatasets } from './datasets';
import { RUN_FILES } from './folder';
import { settingRows } from './option-checks';
import type { TrainingSettings } from './settings';

/** How many of the mistakes it shows. */
export const MISTAKES = 24;

export interface FinishedRun {
  readonly settings: TrainingSettings;
  readonly datasets: TrainingDatasets;
  readonly preprocessing: Preprocessing;
  readonly model: Module<unknown>;
  readonly result: TrainingResult;
  readonly evaluation: Evaluation | null;
}

/** @throws (rejects) ERR_SENET_FILE */
export async function writeReport(file: string, finished: FinishedRun): Promise<void> {
  const { settings, datasets, preprocessing, model, result, evaluation } = finished;
  const { best, history, seconds } = result;
  const mistakes: ReportedMistake[] = [];
  for (const { image, index, ...mistake } of evaluation?.mistakes ?? []) {
    const name = nameOfImage(datasets.validation as Dataset, index);
    mistakes.push({ ...mistake, name, picture: await pictureOf(image, preprocessing) });
  }
  const images = history.epochs.reduce((sum, epoch) => sum + epoch.imagesPerSecond * epoch.seconds, 0);
  const parameters = model.parameters().reduce((sum, { numel }) => sum + numel, 0);
  const page = renderReport({
    title: `${settings.model} on ${path.basename(settings.data)}`,
    classes: settings.classes,
    history,
    evaluation,
    evaluated: `${count(evaluation?.count ?? 0, 'validation image')}, the best weights (epoch ${best?.epoch ?? 0})`,
    mistakes,
    highlights: [
      ...(evaluation === null
        ? []
        : [[percent(evaluation.accuracy), `validation accuracy (epoch ${best?.epoch ?? 0})`] as const]),
      [significant(history.epochs.at(-1)?.loss ?? 0), 'training loss at the end'],
      [duration(seconds), 'of training'],
      [Math.round(images / Math.max(seconds, 1e-9)).toLocaleString('en'), 'images a second'],
      [parameters.toLocaleString('en'), 'parameters'],
    ],
    settings: settingRows(settings, {
      training: datasets.train.length,
      validation: datasets.validation?.length ?? 0,
    }),
    machine: machineFacts(),
    files: [
      [RUN_FILES.best, `the weights of epoch ${best?.epoch ?? 0}`],
      [RUN_FILES.last, 'the weights at the end'],
      [RUN_FILES.checkpoint, 'everything, to go on or to look at'],
      [RUN_FILES.log, 'the numbers of this page, a line of JSON each'],
    ],
  });
  await writeAtomically(file, (sink) => sink.write(Buffer.from(page)));
}

function nameOfImage(dataset: Dataset, index: number): string {
  let [inner, place] = [dataset, index];
  while (inner instanceof Subset) [inner, place] = [inner.dataset as Dataset, inner.indices[place] as number];
  if (!(inner instanceof ImageFolder)) return `image ${place}`;
  return path.relative(inner.root, inner.samples[place]?.file ?? '');
}
