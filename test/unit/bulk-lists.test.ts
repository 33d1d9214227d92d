/** Lists of images: folders, globs, archives and lists on a stream, in an order that depends on names alone. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';

import { expect } from 'chai';
import { create } from 'tar';

import { listImages } from '../../lib';
import { selectImages, type Selection } from '../../lib/bulk/image-list';
import type { ImageListing } from '../../lib/bulk/list-images';
import { checkShard } from '../../lib/bulk/shard';
import { expectRejection, expectThrow } from '../support/errors';
import { Temporary } from '../support/temporary';

const SANDAL = path.join(__dirname, '..', '..', 'assets', 'images', '08-sandal.png');

async function names(list: ImageListing, selection: Selection = {}): Promise<string[]> {
  const found: string[] = [];
  for await (const { file } of list.select(selection)) found.push(file);
  return found;
}

describe('listImages', () => {
  const temporary = new Temporary();
  const root = temporary.path('photos');
  const at = (...parts: string[]): string => path.join(root, ...parts);
  const files = ['b.jpg', 'a.PNG', 'Z/1.webp', 'a/2.gif', 'a/10.gif', 'a/deep/er/x.bmp'];
  const inOrder = ['a.PNG', 'b.jpg', 'Z/1.webp', 'a/10.gif', 'a/2.gif', 'a/deep/er/x.bmp'];

  before(() => {
    for (const file of [...files, 'notes.txt', 'a/.hidden.png', '.git/x.png', 'a/readme']) {
      mkdirSync(path.dirname(at(file)), { recursive: true });
      writeFileSync(at(file), file);
    }
  });
  after(() => temporary.cleanUp());

  it('walks folders: files before folders, sorted, with what does not count told by kind', async () => {
    const list = listImages(root);
    expect(await names(list)).to.deep.equal(inOrder.map((file) => at(file)));
    expect(Object.fromEntries(list.leftOut)).to.deep.equal({ '.txt': 1, 'no ending': 1, hidden: 2 });
    expect(await list.count()).to.equal(files.length);
    expect(list.expected).to.equal(files.length);
  });

  it('follows links, in no circle, and counts those that lead nowhere', async () => {
    const folder = temporary.path('links');
    mkdirSync(path.join(folder, 'sub'), { recursive: true });
    symlinkSync(at('b.jpg'), path.join(folder, 'one.jpg'));
    symlinkSync(at('a'), path.join(folder, 'sub', 'a'));
    symlinkSync(folder, path.join(folder, 'sub', 'up'));
    symlinkSync('nothing', path.join(folder, 'gone.jpg'));
    const list = listImages(folder);
    expect((await names(list)).map((file) => path.relative(folder, file))).to.deep.equal([
      'one.jpg',
      'sub/a/10.gif',
      'sub/a/2.gif',
      'sub/a/deep/er/x.bmp',
    ]);
    expect(list.leftOut.get('link in a circle')).to.equal(1);
    expect(list.leftOut.get('link to nothing')).to.equal(1);
  });

  it('takes globs, as far down as they reach; a name that exists is no glob', async () => {
    const relative = async (glob: string): Promise<string[]> =>
      (await names(listImages(at(glob)))).map((file) => path.relative(root, file));
    expect(await relative('*.{jpg,PNG}')).to.deep.equal(['a.PNG', 'b.jpg']);
    expect(await relative('**/*.gif')).to.deep.equal(['a/10.gif', 'a/2.gif']);
    expect(await relative('?/*')).to.deep.equal(['Z/1.webp', 'a/10.gif', 'a/2.gif', 'a/readme']);
    expect(await relative('a/.*')).to.deep.equal(['a/.hidden.png']);
    const odd = temporary.path('[1].jpg');
    writeFileSync(odd, '');
    expect(await names(listImages(odd))).to.deep.equal([odd]);
  });

  it('says what is wrong with what was named, before it lists anything', async () => {
    const where = temporary.path('nowhere');
    await expectRejection(names(listImages([root, where])), 'ERR_SENET_FILE_NOT_FOUND', /nowhere/);
    await expectRejection(names(listImages(root, { recursive: false })), 'ERR_SENET_FILE', /recursive: true/);
    const empty = temporary.path('empty');
    mkdirSync(empty);
    writeFileSync(path.join(empty, 'a.txt'), '');
    await expectRejection(names(listImages(empty)), 'ERR_SENET_FILE_NOT_FOUND', /no images.*\.txt: 1/);
    await expectRejection(names(listImages(at('*.nef'))), 'ERR_SENET_FILE_NOT_FOUND', /no images/);
    await expectRejection(
      names(listImages([root, path.join(where, '*.png')])),
      'ERR_SENET_FILE_NOT_FOUND',
      /\*\.png: there is no folder '.*nowhere'/,
    );
    const file = listImages(path.join(empty, 'a.txt', '*.png'));
    await expectRejection(names(file), 'ERR_SENET_FILE_NOT_FOUND', /no such folder/);
    expectThrow(() => listImages([]), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => listImages(['-', '-']), 'ERR_SENET_ARG_RANGE', /once/);
    expectThrow(() => listImages([1] as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => listImages('x', { input: 1 } as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => listImages('x', { recursiv: true } as never), 'ERR_SENET_UNKNOWN_OPTION', /recursive/);
  });

  it('a folder that cannot be read is an image that cannot be read', async () => {
    const folder = temporary.path('locked');
    mkdirSync(path.join(folder, 'in'), { recursive: true });
    writeFileSync(path.join(folder, 'a.jpg'), '');
    const seen: unknown[] = [];
    for await (const { image } of listImages(folder)) {
      seen.push(image);
      rmSync(path.join(folder, 'in'), { recursive: true, force: true });
    }
    expect(seen).to.have.length(2);
    expectThrow(seen[1] as () => unknown, 'ERR_SENET_FILE_NOT_FOUND', /ENOENT/);
  });

  for (const [kind, ending] of [
    ['tar', '.tar'],
    ['tar, gzip-compressed', '.tgz'],
    ['zip', '.zip'],
  ] as const) {
    describe(kind, () => {
      const archive = temporary.path(`pictures${ending}`);
      const content = ['pack/a.png', 'pack/sub/b.png', 'pack/c.png', 'pack/notes.txt', 'pack/.d.png'];

      before(async () => {
        const folder = temporary.path(`archive${ending}`);
        for (const [number, file] of content.entries()) {
          mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
          if (number === 0) cpSync(SANDAL, path.join(folder, file));
          else writeFileSync(path.join(folder, file), `${file} `.repeat(2000 * number));
        }
        if (ending === '.zip')
          execFileSync('python3', ['-m', 'zipfile', '-c', archive, 'pack'], { cwd: folder });
        else await create({ file: archive, cwd: folder, gzip: ending === '.tgz' }, content);
      });

      it('gives the images in its order, with their bytes', async () => {
        const list = listImages(archive);
        const found = new Map<string, Buffer>();
        for await (const { file, image } of list)
          found.set(path.relative(archive, file), await (image as () => Promise<Buffer>)());
        expect([...found.keys()].sort()).to.deep.equal(['pack/a.png', 'pack/c.png', 'pack/sub/b.png']);
        expect(found.get('pack/a.png')).to.deep.equal(readFileSync(SANDAL));
        expect(found.get('pack/c.png')?.toString()).to.equal('pack/c.png '.repeat(4000));
        expect(Object.fromEntries(list.leftOut)).to.include({ '.txt': 1, hidden: 1 });
        const [all] = [await names(list)];
        expect(await names(list, { shard: { number: 2, of: 2 } })).to.deep.equal([all[1]]);
      });

      it('in a folder it is opened; damaged, it is an image that cannot be read', async () => {
        const folder = temporary.path(`around${ending}`);
        mkdirSync(folder);
        const bytes = readFileSync(archive);
        writeFileSync(path.join(folder, `whole${ending}`), bytes);
        writeFileSync(path.join(folder, `cut${ending}`), bytes.subarray(0, Math.floor(0.6 * bytes.length)));
        writeFileSync(path.join(folder, `none${ending}`), 'no archive'.repeat(200));
        const problems: string[] = [];
        const whole: string[] = [];
        for await (const { file, image } of listImages(folder)) {
          try {
            if (typeof image === 'function') await image();
            whole.push(path.relative(folder, file));
          } catch (error) {
            problems.push(`${path.basename(file)} ${(error as { code: string }).code}`);
          }
        }
        expect(whole.filter((file) => file.startsWith('whole'))).to.have.length(3);
        expect(problems).to.include(`none${ending} ERR_SENET_DATA_FORMAT`);
        expect(problems).to.include(`cut${ending} ERR_SENET_DATA_FORMAT`);
      });
    });
  }

  it('takes lists from a stream, in whatever pieces, with archives in them', async () => {
    // With a byte-order mark, as other systems begin a file.
    const text = `\ufeffone.jpg\r\n\nfolder/zwei \u00fc.png\n`;
    const bytes = Buffer.from(text);
    const pieces = Array.from(bytes, (_, place) => bytes.subarray(place, place + 1));
    const list = listImages('-', { input: Readable.from(pieces, { objectMode: true }) });
    expect(await names(list)).to.deep.equal(['one.jpg', 'folder/zwei \u00fc.png']);
    expect(await names(listImages('-', { input: Readable.from([]) }))).to.deep.equal([]);
    const long = listImages('-', { input: Readable.from(['x'.repeat(70_000)]) });
    await expectRejection(names(long), 'ERR_SENET_DATA_FORMAT', /70000/);
  });

  it('a list that waits for its stream ends when its signal aborts', async () => {
    const caller = new AbortController();
    const input = new PassThrough();
    input.write('a.jpg\n');
    const list = listImages('-', { input, signal: caller.signal });
    const rest = list[Symbol.asyncIterator]();
    expect((await rest.next()).value).to.include({ file: 'a.jpg', index: 0 });
    const waiting = rest.next();
    caller.abort();
    await expectRejection(waiting, 'ERR_SENET_ABORTED');
    expect(input.destroyed).to.equal(true);
  });

  it('shards share a list out, each image once; what is skipped is not read', async () => {
    const parts = await Promise.all(
      [1, 2, 3].map((number) => names(listImages(root), { shard: { number, of: 3 } })),
    );
    expect(parts.flat().sort()).to.deep.equal(inOrder.map((file) => at(file)).sort());
    const read: (boolean | number)[] = [];
    for await (const { index, image } of selectImages(['a', 'b', 'c', 'd'], {
      shard: checkShard('2/2', 'x'),
      skip: 1,
    }))
      read.push(index, image !== null);
    expect(read).to.deep.equal([1, false, 3, true]);
    for (const wrong of ['0/3', '4/3', '1', '1/0', 'x/y', { number: 1.5, of: 2 }])
      expectThrow(() => checkShard(wrong, 'shard'), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => checkShard(null, 'shard'), 'ERR_SENET_ARG_TYPE');
  });

  it('a file that vanishes between the look and the listing changes nothing for the others', async () => {
    const folder = temporary.path('vanishing');
    mkdirSync(folder);
    for (const name of ['a.jpg', 'b.jpg', 'c.jpg']) writeFileSync(path.join(folder, name), '');
    const found: string[] = [];
    for await (const { file } of listImages(folder)) {
      rmSync(path.join(folder, 'b.jpg'), { force: true });
      found.push(path.basename(file));
    }
    expect(found).to.deep.equal(['a.jpg', 'b.jpg', 'c.jpg']); // its row will say that it is not there
  });
});
