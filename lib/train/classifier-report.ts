/** The report of a classifier's evaluation as a page: its numbers, and the worst mistakes as pictures. */
import type { Dataset } from '../data/dataset';
import { writeAtomically } from '../checkpoint/atomic-file';
import type { ClassifierEvaluation, ClassifierMistake } from './classifier-evaluation';
import { evaluationSections, type ReportedMistake } from './evaluation-sections';
import { machineFacts } from './machine-facts';
import { pictureOf } from './pictures';
import { columns, duration, factTable, renderPage, section, table, type Fact } from './report-page';
import { count, percent } from './words';

/** Images that could not be read are named up to so many. */
const FAILED_SHOWN = 50;

export interface ClassifierReport {
  readonly title: string;
  readonly evaluation: ClassifierEvaluation;
  /** That was evaluated: of the mistakes pictures are shown. */
  readonly dataset: Dataset;
  /** What was evaluated, and how. */
  readonly settings: readonly Fact[];
}

/** @throws (rejects) ERR_SENET_FILE, ERR_SENET_FILE_NOT_FOUND */
export async function writeClassifierReport(file: string, report: ClassifierReport): Promise<void> {
  const page = await renderClassifierReport(report);
  await writeAtomically(file, (sink) => sink.write(Buffer.from(page)), 'evaluate');
}

export async function renderClassifierReport(report: ClassifierReport): Promise<string> {
  const { title, evaluation, dataset, settings } = report;
  const { top1, top5, calibration, classes, confusion, failed, seconds, matched } = evaluation;
  const mistakes: ReportedMistake[] = [];
  for (const mistake of evaluation.mistakes)
    mistakes.push({ ...mistake, picture: await pictureIn(dataset, mistake) });
  return renderPage({
    title,
    highlights: [
      [percent(top1), 'right'],
      ...(classes.length > 5 ? [[percent(top5), 'among the best five'] as const] : []),
      [percent(calibration.ece), 'expected calibration error'],
      [evaluation.count.toLocaleString('en'), 'images'],
      [Math.round(evaluation.count / Math.max(seconds, 1e-9)).toLocaleString('en'), 'images a second'],
      [duration(seconds), 'of evaluation'],
    ],
    sections: [
      ...evaluationSections({
        classes,
        evaluation: { accuracy: top1, confusion, calibration },
        evaluated: count(evaluation.count, 'image'),
        mistakes,
      }),
      ...(failed.length === 0 ? [] : [failedSection(failed)]),
      columns([
        section(
          'Settings',
          factTable([
            ...settings,
            ['classes of the data', matched === 'name' ? 'by their names' : 'by their order'],
          ]),
        ),
        section('Machine', factTable(machineFacts())),
      ]),
    ],
  });
}

function failedSection(failed: ClassifierEvaluation['failed']): string {
  const rows = failed.slice(0, FAILED_SHOWN).map(({ name, code, message }) => [name, code ?? '', message]);
  const more = failed.length > FAILED_SHOWN ? `<p>and ${failed.length - FAILED_SHOWN} more</p>` : '';
  return section('Images that could not be read', `${table(['Image', 'Code', 'Message'], rows, [])}${more}`);
}

async function pictureIn(dataset: Dataset, { index }: ClassifierMistake): Promise<string> {
  const { image } = await dataset.get(index);
  const [, height = 0, width = 0] = image.shape;
  const values = Float32Array.from(image.toTypedArray() as Uint8Array, (value) => value / 255);
  image.dispose();
  return pictureOf({ values, height, width }, { mean: [0], std: [1] });
}
