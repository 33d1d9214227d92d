/**
 * `multipart/form-data` of a body that has arrived: its files and fields, bounded. The parser is busboy's, as Fastify keeps
 * it: no dependencies, and limits for everything that a form can have too much of.
 */
import type { BusboyConstructor, BusboyInstance, BusboyFileStream, BusboyHeaders } from '@fastify/busboy';

import { isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import { printable } from '../printable';

export interface FormFile {
  /** Of the file, where the form says one. */
  readonly name: string | undefined;
  readonly bytes: Buffer;
}

export interface Form {
  readonly files: readonly FormFile[];
  /** The last of each name. */
  readonly fields: ReadonlyMap<string, string>;
}

/** Of one part: what a browser or curl sends has three headers of less than a kilobyte. */
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_HEADERS = 32;
const MAX_FIELDS = 64;
const MAX_FIELD_BYTES = 64 * 1024;
const MAX_FIELD_NAME = 100;

/**
 * @param maxFiles - more are refused
 * @throws (rejects) ERR_SENET_REQUEST (no boundary, another one in the body, a body that ends early, too many or too large
 *   fields), ERR_SENET_REQUEST_SIZE (too many files)
 */
export async function parseForm(body: Buffer, contentType: string, maxFiles: number): Promise<Form> {
  try {
    return await parse(body, contentType, maxFiles);
  } catch (cause) {
    if (isSenetError(cause)) throw cause;
    const reason = isError(cause) ? cause.message : String(cause);
    throw makeError('ERR_SENET_REQUEST', `the form cannot be read: ${printable(reason, 200)}`, { cause });
  }
}

function parse(body: Buffer, contentType: string, maxFiles: number): Promise<Form> {
  return new Promise((resolve, reject) => {
    const parser = makeParser({ 'content-type': contentType }, maxFiles);
    const files: FormFile[] = [];
    const fields = new Map<string, string>();
    const refuse = (code: 'ERR_SENET_REQUEST' | 'ERR_SENET_REQUEST_SIZE', message: string): void =>
      reject(makeError(code, message));
    parser.on('file', (_field: string, file: BusboyFileStream, name: string | undefined) => {
      const parts: Buffer[] = [];
      const place = files.push({ name: undefined, bytes: Buffer.alloc(0) }) - 1;
      file.on('data', (part: Buffer) => void parts.push(part));
      file.on('end', () => void (files[place] = { name, bytes: Buffer.concat(parts) }));
      file.on('error', reject);
    });
    parser.on('field', (name: string, value: string, nameTruncated: boolean, valueTruncated: boolean) => {
      if (nameTruncated || valueTruncated || name === undefined || name.length > MAX_FIELD_NAME) {
        refuse(
          'ERR_SENET_REQUEST',
          `expected fields of a name and at most ${MAX_FIELD_BYTES} bytes in the form`,
        );
        return;
      }
      fields.set(name, value);
    });
    parser.on('partsLimit', () => refuse('ERR_SENET_REQUEST_SIZE', `expected at most ${maxFiles} files`));
    parser.on('filesLimit', () => refuse('ERR_SENET_REQUEST_SIZE', `expected at most ${maxFiles} files`));
    parser.on('fieldsLimit', () => refuse('ERR_SENET_REQUEST', `expected at most ${MAX_FIELDS} fields`));
    parser.on('error', reject);
    parser.on('finish', () => resolve({ files, fields }));
    parser.end(body);
  });
}

function makeParser(headers: BusboyHeaders, maxFiles: number): BusboyInstance {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- loaded by who reads forms
  const Parser = require('@fastify/busboy') as BusboyConstructor;
  return new Parser({
    headers,
    // A picture needs no name of a file.
    isPartAFile: (_field, type, name) =>
      name !== undefined || type === 'application/octet-stream' || /^image\//i.test(type ?? ''),
    limits: {
      files: maxFiles,
      fields: MAX_FIELDS,
      parts: maxFiles + MAX_FIELDS,
      fieldSize: MAX_FIELD_BYTES,
      headerPairs: MAX_HEADERS,
      headerSize: MAX_HEADER_BYTES,
    },
  });
}
