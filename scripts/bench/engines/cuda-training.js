'use strict';
// This library's side of the training steps of `npm run bench:cuda`: forward, loss, backward and SGD of one batch that is
// on the device already, again and again. Prints one line of JSON.
//
//   cuda-training.js JOB    JOB is the JSON that cuda.js makes; `engine` is float32, bfloat16 or float16
const senet = require('../../..');

async function main({ model: name, engine, side, size, seconds }) {
  senet.manualSeed(0);
  const model = senet.createModel(name, { numClasses: 1000 });
  model.to('cuda');
  model.to({ memoryFormat: 'channels_last' });
  const optimizer = new senet.SGD(model.parameters(), { lr: 0.01, momentum: 0.9, weightDecay: 5e-4 });
  const criterion = new senet.CrossEntropyLoss();
  const scaler = new senet.GradScaler({ enabled: engine === 'float16' });
  const x = senet.randn([size, 3, side, side]).to('cuda').to({ memoryFormat: 'channels_last' });
  const labels = senet.tensor(BigInt64Array.from({ length: size }, (_, i) => BigInt(i))).to('cuda');
  const forward = async () => criterion.forward(await model.forward(x), labels);
  const step = () =>
    senet.tidy(async () => {
      optimizer.zeroGrad();
      const loss = await (engine === 'float32' ? forward() : senet.autocast(forward, { dtype: engine }));
      await scaler.scale(loss).backward();
      await scaler.step(optimizer);
      scaler.update();
      return loss.detach();
    });
  const read = async (loss) => Number((await loss.toTypedArrayAsync())[0]);
  const first = await read(await step());
  for (let i = 0; i < 5; i++) await step();
  await senet.cuda.synchronize();
  let steps = 0;
  let loss;
  const start = performance.now();
  while (performance.now() - start < 1000 * seconds || steps < 16) {
    loss?.dispose();
    loss = await step();
    steps++;
    if (steps % 8 === 0) await senet.cuda.synchronize(); // or the host would run ahead of the device for seconds
  }
  const last = await read(loss);
  await senet.cuda.synchronize();
  const ms = (performance.now() - start) / steps;
  console.log(JSON.stringify({ ms, loss: [first, last], memory: senet.cuda.memory().reserved }));
}

main(JSON.parse(process.argv[2])).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
