/**
 * Images that a request names by their address, where the operator allows it. Whoever sends a request must not reach
 * through this server what he does not reach himself: each name is resolved here and the connection made to the very
 * address that was looked at, every redirect is looked at anew, and private networks are refused.
 */
import { lookup as resolve, type LookupAddress, type LookupOptions } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';

import type undici from 'undici';

import { isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { abortError } from '../tensor/abort';
import type { HandlerSettings } from './options';

type Allowed = Exclude<HandlerSettings['urls'], false>;

const MOST_REDIRECTS = 3;
const SILENCE_TIMEOUT = 10_000;
const USUAL_PORTS = ['', '80', '443'];

/** What is not the public internet (IANA's registries of special addresses, and multicast). */
const PRIVATE_NETWORKS: readonly (readonly [address: string, prefix: number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
  // Everything that is not global unicast: loopback, mapped and translated IPv4, local, link-local, multicast.
  ['::', 3],
  ['4000::', 2],
  ['8000::', 1],
  // Parts of global unicast that carry IPv4 or are for documentation.
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
];

/** One for each family: a list compares addresses of both, the one as part of the other. */
const privateNetworks = { ipv4: new BlockList(), ipv6: new BlockList() };
for (const [address, prefix] of PRIVATE_NETWORKS) {
  const family = address.includes(':') ? 'ipv6' : 'ipv4';
  privateNetworks[family].addSubnet(address, prefix, family);
}

/** True of every address that is not one of the public internet. */
export function isPrivateAddress(address: string): boolean {
  const version = isIP(address);
  if (version === 0) return true;
  const family = version === 6 ? 'ipv6' : 'ipv4';
  return privateNetworks[family].check(address, family);
}

/**
 * The bytes at an address.
 *
 * @throws (rejects) ERR_SENET_FORBIDDEN, ERR_SENET_ARG_RANGE (no address of the web), ERR_SENET_REQUEST_SIZE,
 *   ERR_SENET_DOWNLOAD, ERR_SENET_ABORTED
 */
export async function fetchImage(
  address: string,
  allowed: HandlerSettings['urls'],
  maxBytes: number,
  signal: AbortSignal,
): Promise<Buffer> {
  if (allowed === false)
    throw makeError('ERR_SENET_FORBIDDEN', 'images by their address are not allowed here: send their bytes');
  try {
    let url = checked(address, allowed);
    for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
      const answer = await ask(url, allowed, maxBytes, signal);
      if (Buffer.isBuffer(answer)) return answer;
      url = checked(new URL(answer, url).href, allowed);
    }
    throw new Error(`more than ${MOST_REDIRECTS} redirects`);
  } catch (cause) {
    if (signal.aborted) throw abortError(signal);
    const refused = findRefusal(cause);
    if (refused !== undefined) throw refused;
    const reason = isError(cause) ? cause.message : String(cause);
    throw makeError('ERR_SENET_DOWNLOAD', `${printable(address, 200)}: ${printable(reason, 200)}`, { cause });
  }
}

/** undici wraps what a lookup throws. */
function findRefusal(error: unknown): Error | undefined {
  for (let one = error; isError(one); one = one.cause) if (isSenetError(one)) return one;
  return undefined;
}

function checked(address: string, { hosts, privateAddresses }: Allowed): URL {
  let url: URL;
  try {
    url = new URL(address);
  } catch (cause) {
    throw makeError('ERR_SENET_ARG_RANGE', `expected an http: or https: address`, { cause });
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw makeError('ERR_SENET_ARG_RANGE', `expected an http: or https: address, got ${url.protocol}`);
  if (url.username !== '' || url.password !== '')
    throw makeError('ERR_SENET_FORBIDDEN', 'addresses with a user are not fetched');
  if (hosts !== undefined ? !hosts.includes(url.hostname) : !USUAL_PORTS.includes(url.port))
    throw makeError('ERR_SENET_FORBIDDEN', `${printable(url.host, 200)} is not among what is fetched here`);
  // A host that is an address is never looked up.
  const literal = url.hostname.replace(/^\[|\]$/g, '');
  if (isIP(literal) !== 0 && !privateAddresses) refusePrivate(literal);
  return url;
}

function refusePrivate(address: string): void {
  if (isPrivateAddress(address))
    throw makeError('ERR_SENET_FORBIDDEN', 'addresses of private networks are not fetched');
}

/** The body, or where a redirect leads. */
async function ask(
  url: URL,
  allowed: Allowed,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Buffer | string> {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- loaded by who fetches
  const { Agent, request } = require('undici') as typeof undici;
  const lookup: LookupFunction = (host, options, done) => lookUp(host, options, allowed, done);
  const dispatcher = new Agent({ connect: { lookup, timeout: SILENCE_TIMEOUT }, pipelining: 0 });
  try {
    const { statusCode, headers, body } = await request(url, {
      ...{ dispatcher, signal, headersTimeout: SILENCE_TIMEOUT, bodyTimeout: SILENCE_TIMEOUT },
      headers: { 'user-agent': 'senet-torch', accept: 'image/*', 'accept-encoding': 'identity' },
    });
    const { location } = headers;
    if (statusCode >= 300 && statusCode < 400 && typeof location === 'string') return location;
    if (statusCode !== 200) throw new Error(`the server answered ${statusCode}`);
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of body as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > maxBytes)
        throw makeError('ERR_SENET_REQUEST_SIZE', `expected an image of at most ${maxBytes} bytes`);
      parts.push(part);
    }
    return Buffer.concat(parts);
  } finally {
    await dispatcher.destroy();
  }
}

/** As `dns.lookup`, without the addresses that are refused. */
function lookUp(
  host: string,
  options: LookupOptions,
  { privateAddresses }: Allowed,
  done: Parameters<LookupFunction>[2],
): void {
  resolve(host, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
    if (error !== null) {
      done(error, '', 0);
      return;
    }
    try {
      // One private address among public ones is a trick: none is taken.
      if (!privateAddresses) for (const { address } of addresses) refusePrivate(address);
    } catch (refused) {
      done(refused as Error, '', 0);
      return;
    }
    const [first] = addresses;
    if (options.all === true) done(null, addresses);
    else done(null, first?.address ?? '', first?.family ?? 0);
  });
}
