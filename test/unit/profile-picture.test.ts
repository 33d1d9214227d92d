/** The picture of a profile: well-formed whatever the names are, and everything in it that belongs there. */
import { expect } from 'chai';
import sharp from 'sharp';

import { drawProfile } from '../../lib/cli/profile-picture';
import type { CompiledProfile, ProfiledStep } from '../../lib/nn/compiled-model';

function step(name: string, operation: string, milliseconds: number, multiplyAdds = 0): ProfiledStep {
  return {
    name,
    operation,
    fused: ['relu'],
    input: [3, 8, 8],
    output: [4, 8, 8],
    weightBytes: 4,
    activationBytes: 8,
    multiplyAdds,
    milliseconds,
  };
}

function profileOf(...steps: ProfiledStep[]): CompiledProfile {
  return {
    model: 'M',
    dtype: 'float32',
    device: 'cpu',
    backend: 'avx2',
    inputSize: [8, 8],
    weightBytes: 4,
    multiplyAdds: 1,
    batch: 2,
    runs: 1,
    milliseconds: 1,
    steps,
  };
}

const barsOf = (svg: string): { width: number; fill: string }[] =>
  [...svg.matchAll(/<\/text><rect [^>]*width="([\d.]+)"[^>]*fill="([^"]+)"/g)].map(([, width, fill]) => ({
    width: Number(width),
    fill: fill as string,
  }));

describe('the picture of a profile', () => {
  const of = profileOf(
    step('conv', 'convolution', 4, 1e6),
    step('se', 'mean', 1),
    step('se', 'scale', 2),
    step('odd', 'fourier', 1),
    step('even', 'wavelet', 0, 5),
  );

  it('has a bar for each step, as long as its time and coloured by its operation', () => {
    const svg = drawProfile('the title', 'the summary', { steps: of.steps, of });
    const bars = barsOf(svg);
    expect(bars).to.have.lengthOf(5);
    const [first, second, third] = bars.map(({ width }) => width) as [number, number, number];
    expect(second / first).to.be.closeTo(0.25, 0.01);
    expect(third / first).to.be.closeTo(0.5, 0.01);
    expect(new Set(bars.map(({ fill }) => fill)).size).to.equal(5);
    const again = drawProfile('', '', { steps: [of.steps[0], of.steps[0]] as ProfiledStep[], of });
    expect(barsOf(again).map(({ fill }) => fill)).to.deep.equal([bars[0]?.fill, bars[0]?.fill]);
  });

  it('names steps, times, rates, and in the legend the share of each operation', () => {
    const svg = drawProfile('the title', 'the summary', { steps: of.steps, of });
    for (const words of [
      'the title',
      'the summary',
      '>conv<',
      '>se (mean)<',
      '>se (scale)<',
      '4.000 ms, 1 GFLOP/s', // 2 operations x 1e6 x 2 images / 4 ms
      '0.000 ms<',
      'convolution 50.0 %',
      'scale 25.0 %',
      'fourier 12.5 %',
      'convolution + relu',
    ])
      expect(svg).to.include(words);
    expect(svg).not.to.match(/NaN|Infinity|undefined/);
    expect(svg).not.to.match(/slowest/);
    expect(drawProfile('', '', { steps: of.steps.slice(0, 2), of })).to.include('the 2 slowest of 5 steps');
  });

  it('refers to nothing outside, runs nothing, and knows light and dark', () => {
    const svg = drawProfile('t', 's', { steps: of.steps, of });
    expect(svg.replace('http://www.w3.org/2000/svg', '')).not.to.match(/https?:|href|url\(|<script|@import/);
    expect(svg).to.match(/prefers-color-scheme: dark/);
  });

  it('is well-formed whatever the names are, and without steps', async () => {
    const hostile = profileOf(step('</text><script>"&amp;', 'a<b', 1), step('x'.repeat(60), 'mean', 1));
    for (const [profile, title] of [
      [hostile, '<title> & "quotes"'],
      [profileOf(), 'nothing'],
      [profileOf(step('a', 'mean', 0)), 'no time'],
    ] as const) {
      const svg = drawProfile(title, title, { steps: profile.steps, of: profile });
      expect(svg).not.to.match(/<script|NaN|Infinity|="-/);
      const { width, height } = await sharp(Buffer.from(svg)).metadata();
      expect(width).to.equal(960);
      expect(height).to.be.above(60);
    }
  });
});
