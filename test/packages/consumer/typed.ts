import { se_resnet20, zeros, type Tensor } from 'senet-torch';

async function main(): Promise<void> {
  const y: Tensor = await se_resnet20()
    .eval()
    .forward(zeros([1, 3, 32, 32]));
  const shape: readonly number[] = y.shape;
  console.log(JSON.stringify({ shape }));
}
void main();
