/** Sequential and ModuleList: modules under the names "0", "1", ..., as `torch.nn`'s. */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import type { Tensor } from '../tensor/tensor';
import type { AsyncForwardOptions } from './forward-call';
import { Module } from './module';
import { createNativeModule, NativeModule } from './native-module';
import { declareNativeForward, registerModuleClass } from './native-part';

function checkModules(modules: readonly unknown[], where: string): asserts modules is Module<unknown>[] {
  modules.forEach((module, index) => {
    if (!Module.isModule(module)) {
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: ${index}: expected a Module, got ${describe(module)}`);
    }
  });
}

/**
 * Runs its modules one after the other, `torch.nn.Sequential`. If all of them are native it is native too: one job runs
 * them all, it compiles, and it can stand in a native module. Otherwise its forward is TypeScript.
 */
export class Sequential extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE; ERR_SENET_MODULE_TREE for a module that is part of another already; ERR_SENET_BUSY */
  constructor(...modules: Module<unknown>[]) {
    checkModules(modules, 'Sequential');
    const native = modules.every((module) => Module.runsNatively(module));
    super(native ? createNativeModule('Sequential', { modules }) : undefined);
    if (!native) addNumbered(this, modules);
  }

  override async forward(x: Tensor, options?: AsyncForwardOptions): Promise<Tensor> {
    if (Module.isNative(this)) return super.forward(x, options);
    let value: unknown = x;
    for (const module of this) value = await module.forward(value);
    return value as Tensor;
  }

  get length(): number {
    return this.namedChildren().length;
  }

  /** The module at a place; negative numbers count from the last. @throws ERR_SENET_ARG_RANGE */
  at(index: number): Module<unknown> {
    return moduleAt(this, index, 'Sequential');
  }

  *[Symbol.iterator](): IterableIterator<Module<unknown>> {
    for (const [, module] of this.namedChildren()) yield module;
  }
}
declareNativeForward(Sequential);
registerModuleClass('Sequential', Sequential);

/** Modules in a list, which a forward of one's own calls as it likes, `torch.nn.ModuleList`. */
export class ModuleList<M extends Module<unknown> = Module> extends Module {
  /** @throws ERR_SENET_ARG_TYPE */
  constructor(modules: Iterable<M> = []) {
    super();
    this.push(...modules);
  }

  /** Adds modules at the end and gives the new length. @throws ERR_SENET_ARG_TYPE */
  push(...modules: M[]): number {
    checkModules(modules, 'ModuleList');
    addNumbered(this, modules);
    return this.length;
  }

  get length(): number {
    return this.namedChildren().length;
  }

  /** The module at a place; negative numbers count from the last. @throws ERR_SENET_ARG_RANGE */
  at(index: number): M {
    return moduleAt(this, index, 'ModuleList') as M;
  }

  *[Symbol.iterator](): IterableIterator<M> {
    for (const [, module] of this.namedChildren()) yield module as M;
  }
}

/** As properties, which makes them children: all or none. */
function addNumbered(list: Module<unknown>, modules: readonly Module<unknown>[]): void {
  const first = list.namedChildren().length;
  const added = modules.map((module, index): [string, Module<unknown>] => [String(first + index), module]);
  Object.assign(list, Object.fromEntries(added));
  try {
    list.namedChildren(); // refuses a module that has a place already
  } catch (error) {
    for (const [name] of added) Reflect.deleteProperty(list, name);
    throw error;
  }
}

function moduleAt(list: Module<unknown>, index: number, where: string): Module<unknown> {
  const module = list.namedChildren().at(index)?.[1];
  if (module !== undefined && Number.isInteger(index)) return module;
  throw makeError('ERR_SENET_ARG_RANGE', `${where}: at: there is no module ${describe(index)}`);
}
