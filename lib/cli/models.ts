/** `senet-torch models`: the models by name. */
import type { Command } from 'commander';

import { lazy } from './lazy';
import { printJson, printTable } from './output';

export function addModels(program: Command): void {
  program
    .command('models')
    .description('List the models, the images they were designed for, and their published weights.')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  $ senet-torch models --json')
    .action(({ json }: { json?: boolean }) => {
      const { listModels, modelRecord } = lazy.models;
      const models = listModels().map((model) => {
        const { name, inputSize, anyInputSize, numClasses, options, weights } = modelRecord(model);
        const names = weights.map((published) => published.name);
        return { name, inputSize, anyInputSize, numClasses, options, weights: names };
      });
      if (json === true) {
        printJson(models);
        return;
      }
      const rows = models.map(({ name, inputSize, numClasses, options, weights }) => [
        name,
        `${inputSize} x ${inputSize}`,
        numClasses === null ? 'required' : String(numClasses),
        weights.join(', ') || '-',
        options.filter((option) => option !== 'initWeights').join(', '),
      ]);
      printTable([['MODEL', 'IMAGES', 'CLASSES', 'WEIGHTS', 'OPTIONS'], ...rows]);
    });
}
