'use strict';
// A registry for tests: it has the packages of some packed files, and hands every other request on to the registry that npm
// is set up with. Package managers resolve from it as from any, optional dependencies and their platforms included.
const { execFileSync } = require('node:child_process');
const { createHash } = require('node:crypto');
const { createReadStream, readFileSync, statSync } = require('node:fs');
const { createServer } = require('node:http');
const path = require('node:path');
const { Readable } = require('node:stream');
const tar = require('tar');

/** Before any age that a package manager waits for. */
const PUBLISHED = '2020-01-01T00:00:00.000Z';

function manifestOf(tarball) {
  const chunks = [];
  tar.list({
    file: tarball,
    sync: true,
    filter: (name) => name === 'package/package.json',
    onReadEntry: (entry) => entry.on('data', (chunk) => chunks.push(chunk)),
  });
  return JSON.parse(Buffer.concat(chunks).toString());
}

/** Where registries have the file of a package. */
function placeOf(name, version) {
  return `/${name}/-/${name.split('/').at(-1)}-${version}.tgz`;
}

/** What a registry tells of a package that was published once. */
function describe(tarball, url) {
  const manifest = manifestOf(tarball);
  const { name, version } = manifest;
  const bytes = readFileSync(tarball);
  const hash = (algorithm, encoding) => createHash(algorithm).update(bytes).digest(encoding);
  const place = placeOf(name, version);
  const dist = {
    tarball: url + place,
    integrity: `sha512-${hash('sha512', 'base64')}`,
    shasum: hash('sha1', 'hex'),
  };
  const entry = { ...manifest, _id: `${name}@${version}`, dist };
  return {
    name,
    place,
    tarball,
    document: {
      ...{ _id: name, name, 'dist-tags': { latest: version }, versions: { [version]: entry } },
      ...{ time: { created: PUBLISHED, modified: PUBLISHED, [version]: PUBLISHED } },
    },
  };
}

/** @returns { url, add(tarball), fileOf(name), close() } */
async function startRegistry(tarballs) {
  const upstream = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' })
    .trim()
    .replace(/\/?$/, '/');
  const published = new Map();
  const files = new Map();
  const packed = new Map();
  const elsewhere = new Map();
  let url;
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      response.writeHead(502);
      response.end(error.message);
    });
  });
  async function answer(request, response) {
    const asked = decodeURIComponent(new URL(request.url, 'http://registry').pathname);
    const file = files.get(asked);
    if (file !== undefined) {
      response.writeHead(200, { 'content-length': statSync(file).size });
      createReadStream(file).pipe(response);
      return;
    }
    const document = published.get(asked.slice(1));
    if (document !== undefined) {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(document));
      return;
    }
    // No other scope of ours is known to anyone.
    if (asked.startsWith('/@senet-torch/') || request.method !== 'GET') {
      response.writeHead(404, { 'content-type': 'application/json' });
      response.end('{ "error": "Not found" }');
      return;
    }
    const { accept } = request.headers;
    const told = await fetch(elsewhere.get(asked) ?? new URL(request.url.slice(1), upstream), {
      headers: accept ? { accept } : {},
    });
    const type = told.headers.get('content-type') ?? 'application/json';
    response.writeHead(told.status, { 'content-type': type });
    if (told.body === null) response.end();
    else if (told.ok && type.includes('json')) response.end(JSON.stringify(asOwn(await told.json())));
    else Readable.fromWeb(told.body).pipe(response);
  }
  /** The document of another registry's package, with files that lie here: Yarn notes each address that it would not expect. */
  function asOwn(document) {
    for (const { name, version, dist } of Object.values(document.versions ?? {})) {
      const place = placeOf(name, version);
      elsewhere.set(place, dist.tarball);
      dist.tarball = url + place;
    }
    return document;
  }
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${server.address().port}`;
  const add = (tarball) => {
    const { name, place, document } = describe(path.resolve(tarball), url);
    published.set(name, document);
    files.set(place, tarball);
    packed.set(name, tarball);
  };
  tarballs.forEach(add);
  return {
    url,
    add,
    /** The packed file of a package that was added. */
    fileOf: (name) => packed.get(name),
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}

module.exports = { manifestOf, startRegistry };
