/** NativeModule: the base of the classes whose modules C++ makes and runs, and how such a class is made. */
import type { ModuleHandle, ModuleOptionValue } from '../binding';
import { binding } from '../native';
import type { Tensor } from '../tensor/tensor';
import type { AsyncForwardOptions } from './forward-call';
import { Module } from './module';
import { requireNode } from './module-tree';
import { declareNativeForward, NativePart, setWrapperClass, type ModuleClass } from './native-part';

/** A module that C++ runs: a layer, a block, a model. Those without a class of their own are of this one. */
export class NativeModule<Out = Tensor> extends Module<Out> {
  // Not only inherited: it is the very function that says that C++ runs a module (`declareNativeForward`).
  override async forward(x: Tensor, options?: AsyncForwardOptions): Promise<Out> {
    return super.forward(x, options);
  }
}
declareNativeForward(NativeModule);
setWrapperClass(NativeModule);

/**
 * A new native module. Modules among the options become children of it: one under the option's own name, an array's
 * under their numbers.
 *
 * @throws the argument errors of `native/models/registry.h`; ERR_SENET_MODULE_TREE, ERR_SENET_TS_FORWARD, ERR_SENET_BUSY
 */
export function createNativeModule(
  type: string,
  options: Readonly<Record<string, ModuleOptionValue | Module<unknown> | readonly Module<unknown>[]>>,
): NativePart {
  const adopted = new Map<string, Module<unknown>>();
  const adopt = (module: Module<unknown>, name: string): ModuleHandle => {
    const where = `${type}: ${name}`;
    adopted.set(name, module);
    return requireNode(module, where).freeHandle(where);
  };
  const plain = Object.entries(options).map(([name, value]): [string, ModuleOptionValue] => {
    if (Module.isModule(value)) return [name, adopt(value, name)];
    if (Array.isArray(value) && value.some((item) => Module.isModule(item))) {
      return [name, value.map((item: Module<unknown>, index) => adopt(item, String(index)))];
    }
    return [name, value as ModuleOptionValue];
  });
  return new NativePart(binding.createModule(type, Object.fromEntries(plain)), adopted);
}

/**
 * Gives a class of native modules properties by the names of its children: reading gives the child (null if there is
 * none), writing replaces it, `model.fc = new Linear(2048, 5)`.
 */
export function defineChildProperties(moduleClass: ModuleClass, names: readonly string[]): void {
  for (const name of names) {
    Object.defineProperty(moduleClass.prototype, name, {
      configurable: true,
      get(this: Module<unknown>) {
        return this.namedChildren().find(([child]) => child === name)?.[1] ?? null;
      },
      set(this: Module<unknown>, value: Module<unknown>) {
        this.replaceModule(name, value);
      },
    });
  }
}
