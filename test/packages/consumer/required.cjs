'use strict';
// Classifies an image of the package, and tells which files of LibTorch it met.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { ImageClassifier, version } = require('senet-torch');

(async () => {
  const root = path.dirname(require.resolve('senet-torch/package.json'));
  const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
  const [best] = await classifier.classify(
    readFileSync(path.join(root, 'assets', 'images', '00-ankle-boot.png')),
  );
  await classifier.dispose();
  const maps = process.platform === 'linux' ? readFileSync('/proc/self/maps', 'utf8') : '';
  const met = new Set(
    [...maps.matchAll(/\/.*\/(?:libtorch_cpu|libc10|libgomp[^/]*)\.so.*/g)].map(([file]) => file),
  );
  console.log(JSON.stringify({ label: best.label, version: version.package, met: [...met] }));
})().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
