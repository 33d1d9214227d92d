/**
 * The built library in a realm of its own (`node:vm`), as Jest and vitest load it: its modules see that realm's arrays,
 * Maps and errors, and Node's modules are those of the first realm. `import()` is refused, as there.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import vm from 'node:vm';

type Library = typeof import('../../lib/index');

const DIST = path.join(__dirname, '..', '..', 'dist');
// What Node's realm has and a bare one lacks, but what jsdom lacks too.
const GLOBALS = ['AbortController', 'AbortSignal', 'Buffer', 'URL', 'console', 'process'] as const;

export interface Realm {
  readonly library: Library;
  /** Runs a program in the realm; `senet` is the library there. */
  run<T>(program: string): T;
}

/** @param substitutes - modules of Node that the library is to see changed */
export function loadInRealm(substitutes: Readonly<Record<string, unknown>> = {}): Realm {
  const globals = Object.fromEntries(GLOBALS.map((name) => [name, globalThis[name]]));
  const context = vm.createContext({ ...globals, require });
  const loaded = new Map<string, { exports: unknown }>();
  const load = (file: string): unknown => {
    const known = loaded.get(file);
    if (known !== undefined) return known.exports;
    const module = { exports: {} };
    loaded.set(file, module);
    const parameters = ['exports', 'require', 'module', '__filename', '__dirname'];
    const body = vm.compileFunction(readFileSync(file, 'utf8'), parameters, {
      filename: file,
      parsingContext: context,
    });
    body.call(module.exports, module.exports, requireFrom(file), module, file, path.dirname(file));
    return module.exports;
  };
  const requireFrom = (file: string) => {
    const outer = createRequire(file);
    return (request: string): unknown => {
      if (request in substitutes) return substitutes[request];
      const found = outer.resolve(request);
      return found.startsWith(DIST + path.sep) ? load(found) : (outer(request) as unknown);
    };
  };
  const library = load(path.join(DIST, 'index.js')) as Library;
  Object.assign(context, { senet: library });
  return { library, run: <T>(program: string) => vm.runInContext(program, context) as T };
}
