/** Many images through a classifier: order, bounds, errors as rows, and outputs that go on after any end. */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';
import fc from 'fast-check';

import { classifyMany, classifyToFile, ImageClassifier, type ImageRow } from '../../lib';
import { columnsFor } from '../../lib/bulk/columns';
import { csv, JSON_LINES } from '../../lib/bulk/text-formats';
import { bundledImages } from '../../lib/vision/bundled-images';
import { makeError } from '../../lib/errors';
import { expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

describe('many images', () => {
  const temporary = new Temporary();
  let classifier: ImageClassifier;
  let images: string[];

  before(async () => {
    classifier = await ImageClassifier.load('se_resnet20', {
      weights: 'fashion_mnist',
      batching: { maxBatch: 4, maxQueue: 16 },
    });
    images = [...(await bundledImages())];
  });
  after(async () => {
    await classifier.dispose();
    temporary.cleanUp();
  });

  async function collect(rows: AsyncIterable<ImageRow>): Promise<ImageRow[]> {
    const all: ImageRow[] = [];
    for await (const row of rows) all.push(row);
    return all;
  }

  describe('classifyMany', () => {
    it('answers in the order of the images, as classify does, bad images too', async () => {
      const bad = temporary.path('bad.png');
      writeFileSync(bad, 'no image');
      const list = [images[0] as string, bad, temporary.path('missing.png'), ...images.slice(1, 6)];
      const rows = await collect(classifyMany(classifier, list, { topK: 2 }));
      expect(rows.map(({ index, file }) => [index, file])).to.deep.equal([...list.entries()]);
      expect(rows.map(({ error }) => error?.code ?? null)).to.deep.equal([
        null,
        'ERR_SENET_IMAGE',
        'ERR_SENET_FILE_NOT_FOUND',
        ...new Array<null>(5).fill(null),
      ]);
      expect(rows[3]?.labels).to.deep.equal(await classifier.classify(images[1] as string, { topK: 2 }));
      expect(rows[1]?.labels).to.equal(null);
    });

    it('names what has no path by its place, and reads only what its turn has come for', async () => {
      const bytes = readFileSync(images[0] as string);
      let read = 0;
      function* list(): Generator<Buffer | { file: string; image: () => Buffer; bytes: number }> {
        yield bytes;
        for (let place = 1; place < 200; place++) {
          const image = (): Buffer => (read++, bytes);
          yield { file: `number ${place}`, image, bytes: bytes.length };
        }
      }
      const rows = classifyMany(classifier, list(), { topK: 1, inFlight: 8 });
      expect((await rows.next()).value).to.include({ index: 0, file: 'image 0' });
      await delay(100);
      expect(read).to.be.within(1, 9); // and not all 199
      expect(await collect(rows)).to.have.length(199);
      expect(classifier.queue.waiting + classifier.queue.running).to.equal(0);
    });

    it('waits while others fill the queue, instead of failing', async () => {
      const others = Promise.all(images.slice(0, 16).map((image) => classifier.classify(image)));
      const rows = await collect(classifyMany(classifier, images, { inFlight: 1000 }));
      await others;
      expect(rows.filter(({ error }) => error !== null)).to.deep.equal([]);
      expect(rows).to.have.length(images.length);
    });

    it('hands rows on while the list waits for its next image', async () => {
      let more = (): void => undefined;
      async function* list(): AsyncGenerator<string> {
        yield images[0] as string;
        await new Promise<void>((resolve) => (more = resolve));
        yield images[1] as string;
      }
      const rows = classifyMany(classifier, list());
      expect((await rows.next()).value).to.include({ index: 0 });
      const second = rows.next();
      more();
      expect((await second).value).to.include({ index: 1 });
      expect((await rows.next()).done).to.equal(true);
    });

    it('ends at once when it is aborted, when a list fails, when its reader leaves', async () => {
      const caller = new AbortController();
      async function* endless(): AsyncGenerator<string> {
        yield images[0] as string;
        await new Promise(() => undefined);
      }
      const rows = classifyMany(classifier, endless(), { signal: caller.signal });
      await rows.next();
      const waiting = rows.next();
      caller.abort();
      await expectRejection(waiting, 'ERR_SENET_ABORTED');

      function* failing(): Generator<string> {
        yield images[0] as string;
        throw new RangeError('the list is broken');
      }
      const seen: unknown[] = [];
      let problem: unknown;
      try {
        for await (const { file } of classifyMany(classifier, failing())) seen.push(file);
      } catch (error) {
        problem = error;
      }
      expect([seen, (problem as Error).message]).to.deep.equal([[images[0]], 'the list is broken']);

      let closed = false;
      function* watched(): Generator<string> {
        try {
          for (;;) yield images[0] as string;
        } finally {
          closed = true;
        }
      }
      for await (const _ of classifyMany(classifier, watched())) break;
      expect(closed).to.equal(true);
    });

    it('what is no image is a row; what concerns all images is an error', async () => {
      const rows = await collect(classifyMany(classifier, [3 as never, images[0] as string]));
      expect(rows.map(({ error }) => error?.code ?? null)).to.deep.equal(['ERR_SENET_ARG_TYPE', null]);
      const gone = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
      await gone.dispose();
      await expectRejection(collect(classifyMany(gone, images)), 'ERR_SENET_DISPOSED');
      await expectRejection(collect(classifyMany(classifier, 7 as never)), 'ERR_SENET_ARG_TYPE', /images/);
      await expectRejection(collect(classifyMany(null as never, images)), 'ERR_SENET_ARG_TYPE', /classifier/);
      await expectRejection(
        collect(classifyMany(classifier, images, { inFlight: 0 })),
        'ERR_SENET_ARG_RANGE',
      );
    });
  });

  describe('rows as text', () => {
    const anyRow = fc.record({
      index: fc.nat(),
      file: fc.string({ unit: 'grapheme', minLength: 1 }),
      labels: fc.option(
        fc.array(fc.record({ label: fc.string(), index: fc.nat(), score: fc.float({ noNaN: true }) }), {
          maxLength: 2,
        }),
      ),
    });

    it('are read back, whatever the names are', () => {
      fc.assert(
        fc.property(anyRow, ({ index, file, labels }) => {
          const error = labels === null ? makeError('ERR_SENET_IMAGE', `${file}: bad, "very"`) : null;
          for (const format of [JSON_LINES, csv(2)]) {
            const record = format.write({ index, file, labels, error });
            expect(record.endsWith('\n')).to.equal(true);
            const body = record.slice(0, -1);
            expect(format.isWhole(body)).to.equal(true);
            const code = error === null ? null : 'ERR_SENET_IMAGE';
            expect(format.read(body)).to.deep.equal({ file, code });
          }
        }),
      );
    });

    it('CSV has the columns of Parquet, with quotes where they are needed', () => {
      const { header, write } = csv(1);
      expect(header.trim().split(',')).to.deep.equal(columnsFor(1).map(({ name }) => name));
      const labels = [{ label: 'a "b", c', index: 3, score: 0.25 }];
      expect(write({ index: 7, file: 'x.png', labels, error: null })).to.equal(
        '7,x.png,,,"a ""b"", c",3,0.25\n',
      );
    });
  });

  for (const ending of ['.jsonl', '.csv']) {
    describe(`classifyToFile, ${ending}`, () => {
      let whole: Buffer;

      before(async () => {
        const output = temporary.path(`whole${ending}`);
        const report = await classifyToFile(classifier, images, output, { topK: 3 });
        expect(report).to.include({ output, rows: images.length, earlier: 0 });
        expect(report.failed).to.deep.equal({});
        whole = readFileSync(output);
        expect(existsSync(`${output}.lock`)).to.equal(false);
      });

      it('goes on after any end, byte for byte', async () => {
        const output = temporary.path(`cut${ending}`);
        for (const bytes of [0, 1, 12, 300, Math.floor(whole.length / 2), whole.length - 1, whole.length]) {
          writeFileSync(output, whole.subarray(0, bytes));
          const { rows, earlier } = await classifyToFile(classifier, images, output, { topK: 3 });
          expect(readFileSync(output), String(bytes)).to.deep.equal(whole);
          expect(rows).to.equal(images.length);
          expect(earlier <= images.length).to.equal(true);
        }
        // What a machine leaves that lost its power.
        writeFileSync(output, whole.subarray(0, 700));
        appendFileSync(output, Buffer.alloc(100));
        await classifyToFile(classifier, images, output, { topK: 3 });
        expect(readFileSync(output)).to.deep.equal(whole);
      });

      it('goes on after it was aborted, and keeps what was ready', async () => {
        const output = temporary.path(`aborted${ending}`);
        const caller = new AbortController();
        function* list(): Generator<string> {
          for (const [place, image] of images.entries()) {
            if (place === 12) caller.abort();
            yield image;
          }
        }
        const options = { topK: 3, inFlight: 2 };
        await expectRejection(
          classifyToFile(classifier, list(), output, { ...options, signal: caller.signal }),
          'ERR_SENET_ABORTED',
        );
        const { earlier } = await classifyToFile(classifier, images, output, options);
        expect(earlier).to.be.within(8, 12);
        expect(readFileSync(output)).to.deep.equal(whole);
      });

      it('rows of bad images count in every run', async () => {
        const output = temporary.path(`bad${ending}`);
        const list = [images[0] as string, temporary.path('no\nsuch, "file".png'), images[1] as string];
        const first = await classifyToFile(classifier, list, output);
        expect(first.failed).to.deep.equal({ ERR_SENET_FILE_NOT_FOUND: 1 });
        const again = await classifyToFile(classifier, [...list, images[2] as string], output);
        expect(again).to.deep.include({ rows: 4, earlier: 3, failed: { ERR_SENET_FILE_NOT_FOUND: 1 } });
      });

      it('refuses what is of another run, and changes nothing of it', async () => {
        const output = temporary.path(`other${ending}`);
        await classifyToFile(classifier, images.slice(0, 3), output, { topK: 3, network: 'A' });
        const before = readFileSync(output);
        const again = (list: string[], options: object): Promise<unknown> =>
          classifyToFile(classifier, list, output, { topK: 3, network: 'A', ...options });
        await expectRejection(again(images.slice(1), {}), 'ERR_SENET_RESUME', /does not begin with them/);
        await expectRejection(again(images.slice(0, 2), {}), 'ERR_SENET_RESUME', /only 2/);
        await expectRejection(again(images, { network: 'B' }), 'ERR_SENET_RESUME', /network .*A.*B/);
        await expectRejection(again(images, { topK: 2 }), 'ERR_SENET_RESUME');
        await expectRejection(again(images, { shard: '1/2' }), 'ERR_SENET_RESUME', /shard/);
        expect(readFileSync(output)).to.deep.equal(before);
        // Nor is the beginning of a row cut off.
        writeFileSync(output, before.subarray(0, -5));
        await expectRejection(again(images, { network: 'B' }), 'ERR_SENET_RESUME', /network .*A.*B/);
        await expectRejection(again(images.slice(1), {}), 'ERR_SENET_RESUME', /does not begin with them/);
        expect(readFileSync(output)).to.deep.equal(before.subarray(0, -5));
        const foreign = temporary.path(`foreign${ending}`);
        const jsonl = ending === '.jsonl' ? ['{"index":7,"note":"mine"}'] : [];
        for (const text of ['a letter to my mother', 'two\nlines\n', '{"index":0}\n', '1,2\n', ...jsonl]) {
          writeFileSync(foreign, text);
          await expectRejection(classifyToFile(classifier, images, foreign), 'ERR_SENET_RESUME');
          expect(readFileSync(foreign, 'utf8')).to.equal(text);
        }
        await classifyToFile(classifier, images, foreign, { topK: 3, overwrite: true });
        expect(readFileSync(foreign)).to.deep.equal(whole);
      });
    });
  }

  it('bytes of an image that are no number are refused', async () => {
    for (const [bytes, code] of [
      [1n, 'ERR_SENET_ARG_TYPE'],
      [Infinity, 'ERR_SENET_ARG_RANGE'],
      [-1, 'ERR_SENET_ARG_RANGE'],
    ] as const) {
      const image = { file: 'a.png', image: images[0] as string, bytes: bytes as number };
      await expectRejection(
        classifyToFile(classifier, [image], temporary.path('bytes.jsonl')),
        code,
        /a\.png: bytes/,
      );
    }
  });

  describe('classifyToFile, .parquet', () => {
    it('notes no result of an output whose last part could not be written', async () => {
      const output = temporary.path('unwritten.parquet');
      const list = function* (): Generator<string> {
        yield images[0] as string;
        // Where the part is to go lies a folder that is no part.
        mkdirSync(path.join(output, 'part-00000.parquet', 'x'), { recursive: true });
      };
      await expectRejection(classifyToFile(classifier, list(), output), 'ERR_SENET_FILE');
      expect(readFileSync(`${output}.run.json`, 'utf8')).to.not.contain('"rows"');
    });

    type Rows = Record<string, unknown>[];
    async function read(folder: string): Promise<Rows> {
      const { asyncBufferFromFile, parquetReadObjects } = await import('hyparquet');
      const rows: Rows = [];
      for (const name of readdirSync(folder).sort())
        rows.push(
          ...(await parquetReadObjects({ file: await asyncBufferFromFile(path.join(folder, name)) })),
        );
      return rows;
    }

    it('writes parts that other readers read, with the columns of CSV', async () => {
      const output = temporary.path('whole.parquet');
      const list = [images[0] as string, temporary.path('missing.png'), images[1] as string];
      const { failed } = await classifyToFile(classifier, list, output, { topK: 2 });
      expect(failed).to.deep.equal({ ERR_SENET_FILE_NOT_FOUND: 1 });
      expect(readdirSync(output)).to.deep.equal(['part-00000.parquet']);
      const rows = await read(output);
      const [best, second] = await classifier.classify(images[1] as string, { topK: 2 });
      expect(rows[2]).to.deep.equal({
        ...{ index: 2, file: images[1], error: null, message: null },
        ...{ label_1: best?.label, class_1: best?.index, score_1: best?.score },
        ...{ label_2: second?.label, class_2: second?.index, score_2: second?.score },
      });
      expect(rows[1]).to.include({ index: 1, error: 'ERR_SENET_FILE_NOT_FOUND', label_1: null });
      expect(Object.keys(rows[0] as object)).to.deep.equal(columnsFor(2).map(({ name }) => name));
    });

    it('goes on after its parts, without what a process left that died', async () => {
      const output = temporary.path('parts.parquet');
      for (const end of [7, 7, 12, images.length]) {
        const { rows } = await classifyToFile(classifier, images.slice(0, end), output);
        expect(rows).to.equal(end);
        writeFileSync(path.join(output, '.part-00009.parquet.0123456789ab.tmp'), 'half a part');
      }
      expect(readdirSync(output).filter((name) => !name.startsWith('.'))).to.have.length(3);
      rmSync(path.join(output, '.part-00009.parquet.0123456789ab.tmp'));
      expect((await read(output)).map(({ file }) => file)).to.deep.equal(images);
      await expectRejection(classifyToFile(classifier, images.slice(1), output), 'ERR_SENET_RESUME');
      rmSync(path.join(output, 'part-00001.parquet'));
      await expectRejection(classifyToFile(classifier, images, output), 'ERR_SENET_RESUME', /part-00002/);
      writeFileSync(path.join(output, 'part-00001.parquet'), 'damaged');
      await expectRejection(classifyToFile(classifier, images, output), 'ERR_SENET_RESUME', /part-00001/);
      const again = await classifyToFile(classifier, images.slice(0, 2), output, { overwrite: true });
      expect([again.rows, readdirSync(output)]).to.deep.equal([2, ['part-00000.parquet']]);
      const foreign = temporary.path('foreign.parquet');
      mkdirSync(foreign);
      writeFileSync(path.join(foreign, 'letter.txt'), '');
      await expectRejection(
        classifyToFile(classifier, images, foreign, { overwrite: true }),
        'ERR_SENET_RESUME',
        /letter/,
      );
    });
  });

  it('shards have disjoint rows that make up the whole', async () => {
    const rows: { index: number; file: string }[] = [];
    for (const number of [1, 2, 3]) {
      const output = temporary.path(`shard-${number}.jsonl`);
      await classifyToFile(classifier, images, output, { shard: `${number}/3` });
      for (const line of readFileSync(output, 'utf8').trimEnd().split('\n'))
        rows.push(JSON.parse(line) as (typeof rows)[number]);
    }
    rows.sort((a, b) => a.index - b.index);
    expect(rows.map(({ file }) => file)).to.deep.equal(images);
  });

  it('two at a time: one waits for the other, and finds its rows', async () => {
    const output = temporary.path('both.jsonl');
    const reports = await Promise.all([1, 2].map(() => classifyToFile(classifier, images, output)));
    expect(reports.map(({ earlier }) => earlier).sort((a, b) => a - b)).to.deep.equal([0, images.length]);
    expect(readFileSync(output, 'utf8').trimEnd().split('\n')).to.have.length(images.length);
  });

  it('says where it cannot write', async () => {
    const list = images.slice(0, 1);
    await expectRejection(classifyToFile(classifier, list, 'x.txt'), 'ERR_SENET_ARG_RANGE', /\.jsonl/);
    await expectRejection(
      classifyToFile(classifier, list, temporary.path('no', 'folder.jsonl')),
      'ERR_SENET_FILE_NOT_FOUND',
    );
    mkdirSync(temporary.path('folder.csv'));
    await expectRejection(classifyToFile(classifier, list, temporary.path('folder.csv')), 'ERR_SENET_FILE');
    await expectRejection(classifyToFile(classifier, list, 1 as never), 'ERR_SENET_ARG_TYPE');
  });

  it('tells its progress, with the total where it is known', async () => {
    const told: { done: number; total: number | null }[] = [];
    await classifyToFile(classifier, images, temporary.path('progress.jsonl'), {
      onProgress: ({ done, total }) => told.push({ done, total }),
    });
    expect(told.at(-1)).to.deep.equal({ done: images.length, total: images.length });
  });

  it('a record that is gone or damaged leaves the names to tell', async () => {
    const output = temporary.path('record.jsonl');
    await classifyToFile(classifier, images.slice(0, 2), output);
    const record = `${output}.run.json`;
    expect(JSON.parse(readFileSync(record, 'utf8'))).to.have.nested.property('settings.topK', 5);
    truncateSync(record, 5);
    expect(await classifyToFile(classifier, images.slice(0, 3), output)).to.include({ rows: 3, earlier: 2 });
    expect(path.basename(record)).to.equal('record.jsonl.run.json');
  });
});
