import { se_resnet20, zeros } from 'senet-torch';
import * as all from 'senet-torch';

const y = await se_resnet20()
  .eval()
  .forward(zeros([1, 3, 32, 32]));
console.log(JSON.stringify({ shape: y.shape, isTensor: y instanceof all.Tensor }));
