/** The report of a training run: one page that asks nothing of the network, whatever the names in it are. */
import { expect } from 'chai';
import fc from 'fast-check';
import sharp from 'sharp';

import { escapeHtml, lineChart, niceTicks } from '../../lib/train/charts';
import { pictureOf } from '../../lib/train/pictures';
import { renderReport, type ReportData } from '../../lib/train/report';
import { duration, significant } from '../../lib/train/report-page';

const CLASSES = ['cat', '<b>dog</b>', 'a "fox" & co'];

function example(changes: Partial<ReportData> = {}): ReportData {
  const steps = Array.from({ length: 40 }, (_, index) => ({
    step: 10 * (index + 1),
    epoch: Math.floor(index / 20) + 1,
    loss: 2 / (index + 1),
    accuracy: index / 40,
    learningRate: 0.1 * Math.sin(index / 13),
  }));
  const epoch = (number: number, best: boolean): ReportData['history']['epochs'][number] => ({
    epoch: number,
    step: 200 * number,
    loss: 1 / number,
    accuracy: 0.4 * number,
    learningRate: 0.05,
    validation: { loss: 1.2 / number, accuracy: 0.45 * number },
    best,
    seconds: 75,
    imagesPerSecond: 1234,
  });
  return {
    title: 'se_resnet20 on <animals>',
    classes: CLASSES,
    history: { steps, epochs: [epoch(1, true), epoch(2, true)] },
    evaluation: {
      loss: 0.31,
      accuracy: 0.8,
      confusion: [
        [9, 1, 0],
        [2, 7, 1],
        [0, 2, 8],
      ],
    },
    evaluated: '30 validation images',
    mistakes: [
      {
        name: 'animals/"odd".png',
        label: 1,
        prediction: 0,
        score: 0.93,
        labelScore: 0.04,
        picture: 'data:image/png;base64,AAAA',
      },
    ],
    highlights: [['80.00 %', 'validation accuracy']],
    settings: [['learning rate', '0.1']],
    machine: [['processor', '2 x <fast>']],
    files: [['weights', 'best.safetensors']],
    ...changes,
  };
}

describe('the report of a training run', () => {
  it('holds everything that it shows, and names no address', () => {
    const page = renderReport(example());
    expect(page).to.match(/^<!doctype html>/);
    for (const heading of [
      'Curves',
      'Confusion',
      'Classes',
      'Worst mistakes',
      'Epochs',
      'Settings',
      'Machine',
    ])
      expect(page).to.include(`<h2>${heading}</h2>`);
    expect(page.match(/<svg /g)).to.have.lengthOf(3);
    expect(page).not.to.match(/https?:|<script|<link|url\(|@import|src="(?!data:)/);
    expect(page).to.include('prefers-color-scheme: dark');
  });

  it('shows the numbers that it was given', () => {
    const page = renderReport(example());
    expect(page).to.include('80.00 % right, loss 0.31');
    // Recall and precision of the first class: 9 of 10, 9 of 11.
    expect(page).to.match(
      /<td>cat<\/td><td class="number">10<\/td><td class="number">90\.00 %<\/td><td class="number">81\.82 %<\/td>/,
    );
    expect(page).to.match(
      /<td class="wrong" style="--share:0\.447" title="[^"]*dog[^"]* called cat: 2 \(20\.00 %\)">2<\/td>/,
    );
    expect(page).to.include('called cat 93.00 %');
  });

  it('never takes a name for markup', () => {
    const page = renderReport(example());
    expect(page).not.to.include('<b>dog');
    expect(page).to.include('&lt;b&gt;dog&lt;/b&gt;');
    expect(page).to.include('alt="animals/&quot;odd&quot;.png"');
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(escapeHtml(text)).not.to.match(/[<>"']/);
      }),
    );
  });

  it('lists what is confused most where a matrix would be too large, and does without validation', () => {
    const classes = Array.from({ length: 100 }, (_, index) => `class ${index}`);
    const confusion = classes.map((_, label) => classes.map((__, other) => (label === other ? 5 : 0)));
    (confusion[3] as number[])[77] = 4;
    const large = renderReport(
      example({ classes, evaluation: { loss: 1, accuracy: 0.99, confusion }, mistakes: [] }),
    );
    expect(large).not.to.include('class="matrix"');
    expect(large).to.match(/<td>class 3<\/td><td>class 77<\/td><td class="number">4 of 9<\/td>/);
    const without = renderReport(example({ evaluation: null }));
    expect(without).not.to.include('Confusion');
  });

  it('draws charts that a renderer understands, also of one point, of none and of numbers that are not finite', async () => {
    const chart = (points: [number, number][]): string =>
      lineChart({
        title: 'Loss',
        xLabel: 'epoch',
        format: significant,
        series: [{ name: 'training', colour: 1, points, marks: true }],
      });
    expect(chart([])).to.equal('');
    for (const points of [
      [[1, 0.5]],
      [
        [1, NaN],
        [2, 3],
      ],
      [
        [0, 5],
        [1, 5],
        [2, 5],
      ],
    ] as [number, number][][]) {
      const [svg = ''] = /<svg[^]*<\/svg>/.exec(chart(points)) ?? [];
      expect(svg).not.to.match(/NaN|Infinity|undefined/);
      const { width, height } = await sharp(
        Buffer.from(svg.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ')),
      ).metadata();
      expect([width, height]).to.deep.equal([560, 270]);
    }
  });

  it('has round numbers at the axes that enclose the values', () => {
    expect(niceTicks(0, 1, 5)).to.deep.equal([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(niceTicks(0.3, 2.31, 5)).to.deep.equal([0, 0.5, 1, 1.5, 2, 2.5]);
    fc.assert(
      fc.property(
        fc.double({ min: -1e6, max: 1e6, noNaN: true }),
        fc.double({ min: 1e-6, max: 1e6, noNaN: true }),
        (low, width) => {
          const ticks = niceTicks(low, low + width, 5);
          const slack = 1e-6 * (Math.abs(low) + width);
          expect(ticks[0]).to.be.at.most(low + slack);
          expect(ticks.at(-1)).to.be.at.least(low + width - slack);
          expect(ticks.length).to.be.within(2, 8);
        },
      ),
    );
  });

  it('turns a network input back into the picture', async () => {
    // Red, green; blue, white: normalised as the network got it.
    const pixels = [255, 0, 0, 255, /* green */ 0, 255, 0, 255, /* blue */ 0, 0, 255, 255];
    const [mean, std] = [
      [0.4, 0.5, 0.6],
      [0.2, 0.25, 0.3],
    ];
    const values = Float32Array.from(
      pixels,
      (pixel, at) => (pixel / 255 - (mean[Math.floor(at / 4)] ?? 0)) / (std[Math.floor(at / 4)] ?? 1),
    );
    const address = await pictureOf({ values, height: 2, width: 2 }, { mean, std });
    expect(address).to.match(/^data:image\/png;base64,/);
    const { data, info } = await sharp(Buffer.from(address.split(',')[1] ?? '', 'base64'))
      .raw()
      .toBuffer({ resolveWithObject: true });
    expect([info.width, info.height]).to.deep.equal([2, 2]);
    expect([...data]).to.deep.equal([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
    const grey = await pictureOf(
      { values: Float32Array.of(-2, 0, 2, 3), height: 2, width: 2 },
      { mean: [0.4], std: [0.2] },
    );
    const shades = await sharp(Buffer.from(grey.split(',')[1] ?? '', 'base64'))
      .toColourspace('b-w')
      .raw()
      .toBuffer();
    expect([...shades]).to.deep.equal([0, 102, 204, 255]);
    const large = await pictureOf(
      { values: new Float32Array(3 * 224 * 448), height: 224, width: 448 },
      { mean, std },
    );
    const { width, height } = await sharp(Buffer.from(large.split(',')[1] ?? '', 'base64')).metadata();
    expect([width, height]).to.deep.equal([160, 80]);
  });

  it('writes times for people', () => {
    expect([12.34, 59.96, 185, 3600, 3725].map(duration)).to.deep.equal([
      '12.3 s',
      '1 min 00 s',
      '3 min 05 s',
      '1 h 00 min',
      '1 h 02 min',
    ]);
  });
});
