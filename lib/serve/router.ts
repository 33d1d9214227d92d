/** Which route a method and a path mean. Knows nothing of what routes do. */
import { makeError } from '../errors';
import { printable } from '../printable';

/** A method and a path with names for its variable segments: '/v2/models/:model'. */
export interface RoutePattern {
  readonly method: 'GET' | 'POST';
  readonly path: string;
}

export interface Match<R extends RoutePattern> {
  readonly route: R;
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
}

const MAX_URL = 8 * 1024;

export class Router<R extends RoutePattern> {
  readonly #routes: readonly { readonly route: R; readonly segments: readonly string[] }[];

  constructor(routes: readonly R[]) {
    this.#routes = routes.map((route) => ({ route, segments: route.path.slice(1).split('/') }));
  }

  /**
   * HEAD is the GET without its body; a slash at the end does not count.
   *
   * @throws ERR_SENET_NO_ROUTE, ERR_SENET_METHOD, ERR_SENET_REQUEST (an address that is none)
   */
  match(method: string, url: string): Match<R> {
    if (url.length > MAX_URL)
      throw makeError('ERR_SENET_REQUEST', `expected an address of at most ${MAX_URL} characters`);
    const end = url.indexOf('?');
    const path = end < 0 ? url : url.slice(0, end);
    const segments = path.replace(/^\//, '').replace(/\/$/, '').split('/');
    const here = this.#routes.filter((candidate) => fits(candidate.segments, segments));
    const wanted = method === 'HEAD' ? 'GET' : method;
    const found = here.find(({ route }) => route.method === wanted);
    if (found !== undefined) {
      return {
        route: found.route,
        parameters: parametersOf(found.segments, segments),
        query: new URLSearchParams(end < 0 ? '' : url.slice(end + 1)),
      };
    }
    if (here.length === 0)
      throw makeError('ERR_SENET_NO_ROUTE', `there is nothing at ${printable(path, 200)}`);
    const allow = here.map(({ route }) => (route.method === 'GET' ? 'GET, HEAD' : route.method)).join(', ');
    throw makeError('ERR_SENET_METHOD', `expected ${allow} at ${printable(path, 200)}`, {
      details: { allow },
    });
  }
}

function fits(pattern: readonly string[], segments: readonly string[]): boolean {
  return (
    pattern.length === segments.length &&
    pattern.every((part, place) => (part.startsWith(':') ? segments[place] !== '' : part === segments[place]))
  );
}

function parametersOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> {
  const parameters: Record<string, string> = {};
  for (const [place, part] of pattern.entries())
    if (part.startsWith(':')) parameters[part.slice(1)] = decoded(segments[place] ?? '');
  return parameters;
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw makeError('ERR_SENET_REQUEST', `the address is not encoded as one: ${printable(segment, 200)}`, {
      cause,
    });
  }
}
