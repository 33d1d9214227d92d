/**
 * Forward hooks: functions that see, and may replace, what a module's forward gives. Knows nothing of modules.
 */
import { makeError } from '../errors';
import { describe } from '../tensor/options';

export interface HookHandle {
  /** From here on the hook is not called, not even by a forward that is under way. Harmless when repeated. */
  remove(): void;
}

type Hook = (module: unknown, inputs: readonly unknown[], output: unknown) => unknown;

/** The hooks of one module, in the order of their registration. */
export class ForwardHooks {
  readonly #hooks = new Map<object, Hook>();

  get any(): boolean {
    return this.#hooks.size > 0;
  }

  /** @throws ERR_SENET_ARG_TYPE */
  add(hook: unknown): HookHandle {
    if (typeof hook !== 'function') {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `registerForwardHook: expected a function, got ${describe(hook)}`,
      );
    }
    const handle = { remove: () => void this.#hooks.delete(handle) };
    this.#hooks.set(handle, hook as Hook);
    return handle;
  }

  /**
   * The hooks of a call that begins now, to be run on its output: one that is registered while the call is under way
   * waits for the next. They may call the module again; what they throw is the call's error.
   */
  begin(): (module: unknown, inputs: readonly unknown[], output: unknown) => Promise<unknown> {
    const begun = [...this.#hooks];
    return async (module, inputs, output) => {
      let current = output;
      for (const [handle, hook] of begun) {
        if (!this.#hooks.has(handle)) continue;
        const replaced = await hook(module, inputs, current);
        if (replaced !== undefined && replaced !== null) current = replaced;
      }
      return current;
    };
  }
}
