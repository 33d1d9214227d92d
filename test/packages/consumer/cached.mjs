// As required.cjs, without node_modules: Deno runs packages where its cache has them.
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { ImageClassifier, version } from 'npm:senet-torch@VERSION';

const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
const [best] = await classifier.classify(readFileSync(process.argv[2]));
await classifier.dispose();
const met = [
  ...readFileSync('/proc/self/maps', 'utf8').matchAll(/\/.*\/(?:libtorch_cpu|libc10|libgomp[^/]*)\.so.*/g),
];
console.log(
  JSON.stringify({
    label: best.label,
    version: version.package,
    met: [...new Set(met.map(([file]) => file))],
  }),
);
