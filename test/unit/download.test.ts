/** The downloader against a local server: whole, resumed, damaged, refused, aborted, proxied, locked. */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { createServer as createTcpServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

import { expect } from 'chai';

import { downloadFile, mostBytes } from '../../lib/hub/download';
import { startServer, type TestServer } from '../support/http-server';
import { Temporary } from '../support/temporary';

const body = randomBytes(700_000);
const digest = createHash('sha256').update(body).digest('hex');

async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string; cause?: unknown }> {
  return promise.then(
    () => expect.fail('it should reject'),
    (error: unknown) => error as Error,
  );
}

describe('downloadFile', () => {
  let server: TestServer;
  let temporary: Temporary;
  let file: string;
  beforeEach(async () => {
    temporary = new Temporary();
    temporary.environment({
      HTTP_PROXY: undefined,
      http_proxy: undefined,
      NO_PROXY: undefined,
      no_proxy: undefined,
    });
    file = temporary.path('deep', 'weights.bin');
    server = await startServer({ body });
  });
  afterEach(async () => {
    await server.close();
    temporary.cleanUp();
  });
  const quiet = { progress: false } as const;
  const left = (): string[] => (existsSync(path.dirname(file)) ? readdirSync(path.dirname(file)).sort() : []);
  /** The one partial file that is there. */
  const partial = (): string =>
    path.join(path.dirname(file), left().find((name) => name.endsWith('.partial')) ?? 'none');

  it('brings the file whole, makes its folder and leaves nothing else', async () => {
    await downloadFile(`${server.url}/weights.bin`, file, { ...quiet, sha256Prefix: digest.slice(0, 8) });
    expect(readFileSync(file).equals(body)).to.equal(true);
    expect(left()).to.deep.equal(['weights.bin']);
  });

  it('follows redirects', async () => {
    server.behave({ redirectTo: '/elsewhere' });
    await downloadFile(`${server.url}/weights.bin`, file, quiet);
    expect(readFileSync(file).equals(body)).to.equal(true);
  });

  it('does not ask again for a file that is there', async () => {
    await downloadFile(`${server.url}/weights.bin`, file, quiet);
    await downloadFile(`${server.url}/weights.bin`, file, quiet);
    expect(server.requests).to.have.length(1);
  });

  it('reports bytes and total', async () => {
    const seen: { bytes: number; total?: number }[] = [];
    await downloadFile(`${server.url}/weights.bin`, file, { progress: (progress) => seen.push(progress) });
    expect(seen.at(-1)).to.deep.equal({ bytes: body.length, total: body.length });
    expect(seen.map(({ bytes }) => bytes)).to.deep.equal(
      seen.map(({ bytes }) => bytes).sort((a, b) => a - b),
    );
  });

  it('a wrong hash prints the digest and keeps nothing', async () => {
    const advice = { transfer: 'by hand', hash: 'pass { checkHash: false }' };
    const error = await rejection(
      downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: '00000000', advice }),
    );
    expect(error).to.have.property('code', 'ERR_SENET_HASH');
    expect(error.message).to.contain(digest).and.contain('checkHash: false').and.not.contain('by hand');
    expect(left()).to.deep.equal([]);
  });

  it('404 is one clear error at once', async () => {
    server.behave({ status: 404 });
    const error = await rejection(downloadFile(`${server.url}/w`, file, quiet));
    expect(error).to.have.property('code', 'ERR_SENET_DOWNLOAD');
    expect(error.message).to.contain('404').and.contain(`${server.url}/w`);
    expect(server.requests).to.have.length(1);
  });

  it('a user and a password of an address are sent, and told to nobody', async () => {
    const address = `${server.url.replace('//', '//some:pass%20word@')}/w`;
    server.behave({ status: 404 });
    const error = await rejection(downloadFile(address, file, quiet));
    expect(error).to.have.property('code', 'ERR_SENET_DOWNLOAD');
    expect(JSON.stringify([error.message, error]))
      .to.contain(`${server.url}/w`)
      .and.not.match(/pass|some:/);
    const [request] = server.requests;
    expect(request?.authorization).to.equal(`Basic ${Buffer.from('some:pass word').toString('base64')}`);
  });

  it('500 is tried again', async () => {
    server.behave({ status: 500 });
    const running = downloadFile(`${server.url}/w`, file, quiet);
    while (server.requests.length === 0) await new Promise((resolve) => setImmediate(resolve));
    server.behave({ status: 200 });
    await running;
    expect(readFileSync(file).equals(body)).to.equal(true);
    expect(server.requests).to.have.length(2);
  });

  it('a broken connection is resumed from where it broke', async () => {
    server.behave({ cutAfter: 300_000 });
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(readFileSync(file).equals(body)).to.equal(true);
    expect(server.requests.slice(1).every(({ range }) => range !== undefined)).to.equal(true);
  });

  it('a partial file of an earlier process is resumed', async () => {
    server.behave({ cutAfter: 100_000 });
    expect(await rejection(downloadFile(`${server.url}/w`, file, quiet))).to.have.property(
      'code',
      'ERR_SENET_DOWNLOAD',
    );
    expect(left()[0]).to.match(/^weights\.bin\.[0-9a-f]{16}\.partial$/);
    expect(left()).to.deep.equal([path.basename(partial()), `${path.basename(partial())}.json`]);
    const before = server.requests.length;
    server.behave({ cutAfter: Infinity });
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(server.requests[before]?.range).to.equal('bytes=300000-');
    expect(left()).to.deep.equal(['weights.bin']);
  });

  it('starts over when the file has changed on the server', async () => {
    server.behave({ cutAfter: 100_000 });
    await rejection(downloadFile(`${server.url}/w`, file, quiet));
    const other = randomBytes(500_000);
    server.behave({ cutAfter: Infinity, body: other, etag: '"v2"' });
    await downloadFile(`${server.url}/w`, file, quiet);
    expect(readFileSync(file).equals(other)).to.equal(true);
  });

  it('starts over when the server knows no ranges', async () => {
    server.behave({ cutAfter: 100_000, ranges: false });
    await rejection(downloadFile(`${server.url}/w`, file, quiet));
    server.behave({ cutAfter: Infinity });
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(readFileSync(file).equals(body)).to.equal(true);
  });

  it('starts over when the partial file is longer than the file', async () => {
    server.behave({ cutAfter: 100_000 });
    await rejection(downloadFile(`${server.url}/w`, file, quiet));
    writeFileSync(partial(), Buffer.alloc(900_000));
    server.behave({ cutAfter: Infinity });
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(readFileSync(file).equals(body)).to.equal(true);
  });

  it('an answer that continues elsewhere than asked is not appended', async () => {
    server.behave({ cutAfter: 100_000 });
    await rejection(downloadFile(`${server.url}/w`, file, quiet));
    server.behave({ cutAfter: Infinity, rangeShift: 50_000 });
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(readFileSync(file).equals(body)).to.equal(true);
  });

  it('a connection that is reset before the answer is tried again', async () => {
    let requests = 0;
    const flaky = createServer((incoming, outgoing) => {
      if (++requests === 1) incoming.socket.resetAndDestroy();
      else outgoing.end(body);
    });
    await new Promise<void>((resolve) => flaky.listen(0, '127.0.0.1', resolve));
    const { port } = flaky.address() as AddressInfo;
    await downloadFile(`http://127.0.0.1:${port}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(requests).to.equal(2);
    flaky.close();
  });

  it('an error of the progress function comes through, and the partial file is resumed', async () => {
    server.behave({ slow: 5 });
    const thrown = new Error('no more');
    const progress = ({ bytes }: { bytes: number }): void => {
      if (bytes > 100_000) throw thrown;
    };
    expect(await rejection(downloadFile(`${server.url}/w`, file, { progress }))).to.equal(thrown);
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(server.requests.at(-1)?.range).to.match(/^bytes=[1-9]\d*-$/);
  });

  it('a lock that is taken away while it downloads is a coded error, not the end of the process', async () => {
    server.behave({ slow: 500 });
    const running = rejection(downloadFile(`${server.url}/w`, file, quiet));
    while (!left().some((name) => name.endsWith('.partial')))
      await new Promise((resolve) => setTimeout(resolve, 20));
    rmSync(`${file}.lock`);
    expect(await running).to.have.property('code', 'ERR_SENET_LOCKED');
    expect(existsSync(file)).to.equal(false);
  });

  it('takes no more than it is told, whatever the server promises or sends', async () => {
    const refused = async (maxBytes: number): Promise<void> => {
      const error = await rejection(downloadFile(`${server.url}/w.bin`, file, { ...quiet, maxBytes }));
      expect(error.code).to.equal('ERR_SENET_DOWNLOAD');
      expect(error.message).to.match(/bytes or more, and \d+ at most are taken \(option maxBytes\)/);
      expect(left()).to.deep.equal([]);
    };
    await refused(699_999); // promised
    server.behave({ chunked: true });
    await refused(300_000); // sent without a promise
    expect(server.requests.length).to.equal(2);
    await downloadFile(`${server.url}/w.bin`, file, { ...quiet, maxBytes: 700_000 });
    expect(readFileSync(file).equals(body)).to.equal(true);
  });

  it('takes less of what comes without a promised length, unless it is told how much', () => {
    expect([mostBytes(undefined, true), mostBytes(undefined, false)]).to.deep.equal([2 ** 32, 2 ** 30]);
    expect([mostBytes(7e9, true), mostBytes(7e9, false)]).to.deep.equal([7e9, 7e9]);
  });

  it('refuses at once what a server promises beyond any file of weights', async () => {
    server.behave({ claimedLength: 99_999_999_999_999 });
    const error = await rejection(downloadFile(`${server.url}/w.bin`, file, quiet));
    expect([error.code, server.requests.length]).to.deep.equal(['ERR_SENET_DOWNLOAD', 1]);
    expect(error.message).to.match(/it has 99999999999999 bytes or more/);
  });

  it('refuses an answer that is encoded, though it asked for none, and unpacks nothing', async () => {
    server.behave({ body: gzipSync(Buffer.alloc(20e6)), encoding: 'gzip' });
    const error = await rejection(downloadFile(`${server.url}/w.bin`, file, quiet));
    expect([error.code, server.requests.length]).to.deep.equal(['ERR_SENET_DOWNLOAD', 1]);
    expect(error.message).to.match(/encoded \(gzip\)/);
    expect(left()).to.deep.equal([]);
  });

  it('fewer bytes than promised never become the file', async () => {
    server.behave({ claimedLength: 800_000 });
    const error = await rejection(downloadFile(`${server.url}/w`, file, quiet));
    expect(error).to.have.property('code', 'ERR_SENET_DOWNLOAD');
    expect(existsSync(file)).to.equal(false);
  });

  it('nobody listening fails, and says so', async () => {
    const { url } = server;
    await server.close();
    const error = await rejection(downloadFile(`${url}/w`, file, quiet));
    expect(error).to.have.property('code', 'ERR_SENET_DOWNLOAD');
    expect(error.message).to.contain('ECONNREFUSED');
    server = await startServer({ body });
  });

  it('an aborted signal stops before and during, and the rest is resumed', async () => {
    const reason = new Error('enough');
    const before = await rejection(
      downloadFile(`${server.url}/w`, file, { ...quiet, signal: AbortSignal.abort(reason) }),
    );
    expect(before).to.include({ name: 'AbortError', code: 'ERR_SENET_ABORTED', cause: reason });
    expect(server.requests).to.have.length(0);

    server.behave({ slow: 50 });
    const controller = new AbortController();
    const during = await rejection(
      downloadFile(`${server.url}/w`, file, {
        signal: controller.signal,
        progress: ({ bytes }) => bytes > 100_000 && controller.abort(reason),
      }),
    );
    expect(during).to.include({ name: 'AbortError', code: 'ERR_SENET_ABORTED', cause: reason });
    server.behave({ slow: 0 });
    await downloadFile(`${server.url}/w`, file, { ...quiet, sha256Prefix: digest });
    expect(server.requests.at(-1)?.range).to.match(/^bytes=[1-9]\d*-$/);
  });

  it('a folder that cannot be made is a coded error', async () => {
    writeFileSync(temporary.path('file'), '');
    const error = await rejection(downloadFile(`${server.url}/w`, temporary.path('file', 'below'), quiet));
    expect(error).to.have.property('code', 'ERR_SENET_FILE');
  });

  it('goes through the proxy of HTTP_PROXY, and not for NO_PROXY', async () => {
    const proxied: string[] = [];
    // Plain HTTP may come as a request with a whole URL or through a tunnel: both are a proxy's work.
    const proxy = createServer((incoming, outgoing) => {
      proxied.push(incoming.url ?? '');
      httpRequest(incoming.url ?? '', { headers: incoming.headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      }).end();
    });
    proxy.on('connect', (incoming: { url?: string }, socket: import('node:stream').Duplex) => {
      proxied.push(incoming.url ?? '');
      const [host, port] = (incoming.url ?? '').split(':');
      const { connect } = process.getBuiltinModule('node:net');
      const tunnel = connect(Number(port), host, () => socket.write('HTTP/1.1 200 OK\r\n\r\n'));
      tunnel.pipe(socket).pipe(tunnel);
      tunnel.on('error', () => socket.destroy());
      socket.on('error', () => tunnel.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    try {
      temporary.environment({ HTTP_PROXY: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` });
      await downloadFile(`${server.url}/w`, file, quiet);
      expect(readFileSync(file).equals(body)).to.equal(true);
      expect(proxied).to.have.length(1);
      temporary.environment({ NO_PROXY: '127.0.0.1' });
      await downloadFile(`${server.url}/w`, temporary.path('other.bin'), quiet);
      expect(proxied).to.have.length(1);
    } finally {
      proxy.closeAllConnections();
      proxy.close();
    }
  });

  it('a second process waits and takes what the first one brought', async () => {
    server.behave({ slow: 30 });
    const program = `
      const { downloadFile } = require(${JSON.stringify(path.resolve('lib/hub/download.ts'))});
      downloadFile(${JSON.stringify(`${server.url}/w`)}, ${JSON.stringify(file)}, { progress: false })
        .then(() => console.log('done'), (error) => { console.error(error); process.exitCode = 1; });`;
    const runs = [0, 1, 2].map(
      () =>
        new Promise<string>((resolve) => {
          const child = spawn(process.execPath, ['--require', 'tsx/cjs', '-e', program], {
            stdio: ['ignore', 'pipe', 'inherit'],
          });
          let output = '';
          child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
          child.on('close', () => resolve(output.trim()));
        }),
    );
    expect(await Promise.all(runs)).to.deep.equal(['done', 'done', 'done']);
    expect(server.requests).to.have.length(1);
    expect(left()).to.deep.equal(['weights.bin']);
  });

  describe('in a folder that others write to', () => {
    const evil = Buffer.alloc(300_000, 'evil');
    /** Leaves what an interrupted download leaves. */
    async function interrupt(): Promise<void> {
      server.behave({ cutAfter: 100_000 });
      await rejection(downloadFile(`${server.url}/w`, file, quiet));
      server.behave({ cutAfter: Infinity });
    }
    /** The whole file arrives, and nothing of what lay there was asked to be continued. */
    async function expectWhole(): Promise<void> {
      const before = server.requests.length;
      await downloadFile(`${server.url}/w`, file, quiet);
      expect(server.requests[before]?.range).to.equal(undefined);
      expect(readFileSync(file).equals(body)).to.equal(true);
      expect(lstatSync(file).isFile()).to.equal(true);
    }

    it('what others can write to is not continued', async () => {
      await interrupt();
      writeFileSync(partial(), evil);
      chmodSync(partial(), 0o666);
      await expectWhole();
    });

    it('another file in place of the partial one is not continued', async () => {
      await interrupt();
      const place = partial();
      const kept = temporary.path('kept');
      renameSync(place, kept); // else its inode could be given to the next
      writeFileSync(place, evil);
      await expectWhole();
    });

    it('no link is followed, and nothing is written through a second name', async () => {
      for (const connect of [symlinkSync, linkSync]) {
        await interrupt();
        const place = partial();
        const precious = temporary.path('precious');
        writeFileSync(precious, evil);
        rmSync(place);
        connect(precious, place);
        await expectWhole();
        expect(readFileSync(precious).equals(evil)).to.equal(true);
        rmSync(file);
        rmSync(precious);
      }
    });

    it('facts that are a link, or anybody can have written, count for nothing', async () => {
      await interrupt();
      const facts = `${partial()}.json`;
      const elsewhere = temporary.path('facts.json');
      renameSync(facts, elsewhere);
      symlinkSync(elsewhere, facts);
      await expectWhole();
      rmSync(file);
      for (const name of left()) rmSync(path.join(path.dirname(file), name));
      await interrupt();
      chmodSync(`${partial()}.json`, 0o666);
      await expectWhole();
    });

    it('names that earlier versions used are left alone', async () => {
      mkdirSync(path.dirname(file));
      const victim = temporary.path('victim');
      writeFileSync(victim, 'precious');
      symlinkSync(victim, `${file}.partial`);
      symlinkSync(victim, `${file}.partial.json`);
      await expectWhole();
      expect(readFileSync(victim, 'utf8')).to.equal('precious');
    });

    it('a name as long as a file system allows', async () => {
      file = temporary.path('n'.repeat(250));
      await downloadFile(`${server.url}/w`, file, quiet);
      expect(readFileSync(file).equals(body)).to.equal(true);
    });
  });

  describe('clocks', () => {
    it('a lock counts by the times of files, whatever this clock says', async () => {
      mkdirSync(path.dirname(file));
      writeFileSync(`${file}.lock`, '');
      const clock = Date.now;
      const waiting = new AbortController();
      try {
        Date.now = () => clock() + 3_600_000;
        const held = rejection(downloadFile(`${server.url}/w`, file, { ...quiet, signal: waiting.signal }));
        await new Promise((resolve) => setTimeout(resolve, 600));
        expect(server.requests).to.have.length(0); // fresh, though an hour old by this clock
        waiting.abort();
        expect(await held).to.have.property('code', 'ERR_SENET_ABORTED');
        Date.now = () => clock() - 3_600_000;
        const old = clock() / 1000 - 60;
        utimesSync(`${file}.lock`, old, old);
        await downloadFile(`${server.url}/w`, file, quiet);
      } finally {
        Date.now = clock;
      }
      expect(left()).to.deep.equal(['weights.bin']);
    });

    it('a download whose clock jumps keeps its lock, and who waits for it waits', async () => {
      server.behave({ slow: 60 });
      const clock = Date.now;
      let jump = 0;
      try {
        Date.now = () => clock() + (jump = -jump + 86_400_000);
        await Promise.all([
          downloadFile(`${server.url}/w`, file, quiet),
          downloadFile(`${server.url}/w`, file, quiet),
        ]);
      } finally {
        Date.now = clock;
      }
      expect(server.requests).to.have.length(1);
      expect(left()).to.deep.equal(['weights.bin']);
    });

    it('a lock of an earlier version, a folder, is taken over when it is old', async () => {
      mkdirSync(`${file}.lock`, { recursive: true });
      const old = Date.now() / 1000 - 60;
      utimesSync(`${file}.lock`, old, old);
      await downloadFile(`${server.url}/w`, file, quiet);
      expect(left()).to.deep.equal(['weights.bin']);
    });
  });

  it('what the server says is printable and short in messages', async () => {
    const raw = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      const phrase = `\x1b[31mRED\x9b0m${'x'.repeat(5_000)}`;
      socket.once('data', () => socket.end(`HTTP/1.1 404 ${phrase}\r\ncontent-length: 0\r\n\r\n`, 'latin1'));
    });
    await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve));
    const { port } = raw.address() as AddressInfo;
    const { message } = await rejection(downloadFile(`http://127.0.0.1:${port}/w`, file, quiet));
    raw.close();
    expect(message).not.to.match(/[\x00-\x1f\x7f-\x9f]/);
    expect(message.length).to.be.below(600);
  });
});
