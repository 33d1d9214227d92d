/**
 * The options of `train` and `finetune` as commander has them, from the library's rows (`train/recipe/options.ts`), and
 * what was typed as the library takes it. Loads nothing native.
 */
import { InvalidArgumentError, Option, type Command } from 'commander';

import { isSenetError } from '../errors';
import { helpOf } from '../train/recipe/option-checks';
import { OPTION_GROUPS, OPTION_ROWS, type OptionName, type OptionRow } from '../train/recipe/options';
import type { RecipeKind, TrainingOptions } from '../train/recipe/settings';
import { integer, type ValueKind } from '../train/recipe/value-kinds';

/** What was typed, and the recipe whose command it was typed to. */
export interface TrainingArguments extends TrainingOptions {
  threads?: number;
  json?: boolean;
}

export function addTrainingOptions(command: Command, kind: RecipeKind): Command {
  for (const [name, row] of Object.entries(OPTION_ROWS) as [OptionName, OptionRow][]) {
    const group = OPTION_GROUPS.find(({ first }) => first === name);
    if (group !== undefined) command.optionsGroup(group.heading);
    if (row.only === undefined || row.only === kind) addRow(command, row, kind);
  }
  return command;
}

/** Where in a file the state dict is: of every command that reads one. */
export function addPlaceOptions(command: Command): Command {
  for (const name of ['key', 'prefix'] as const) addRow(command, OPTION_ROWS[name], 'finetune');
  return command;
}

function addRow(command: Command, row: OptionRow, kind: RecipeKind): void {
  command.addOption(optionOf(row, kind));
  if (row.off !== undefined) command.addOption(new Option(row.off.flags, row.off.help));
}

function optionOf(row: OptionRow, recipe: RecipeKind): Option {
  const option = new Option(row.flags, helpOf(row, recipe));
  const { choices, read } = row.kind;
  if (choices !== undefined) return option.choices(choices);
  return read === undefined || row.late === true ? option : option.argParser(parserOf(row.kind));
}

/** How commander reads values of a kind. */
function parserOf({ read, rule, words }: ValueKind): (text: string) => unknown {
  return (text) => {
    const value = read === undefined ? text : read(text);
    try {
      return rule(value, text);
    } catch (error) {
      if (!isSenetError(error)) throw error;
      throw new InvalidArgumentError(words === undefined ? error.message : `Expected ${words}.`);
    }
  };
}

/** For options of other commands that count something. */
export const atLeastOne = parserOf(integer(1)) as (text: string) => number;

/** What was typed; commander's own defaults, such as those of `--no-` options, are left to the library. */
export function typedOptions(
  command: Command,
  kind: RecipeKind,
  data: string | undefined,
): TrainingArguments {
  const typed: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(command.opts<Record<string, unknown>>())) {
    if (command.getOptionValueSource(name) !== 'cli') continue;
    const row = OPTION_ROWS[name as OptionName];
    typed[name] = row.late === true ? row.kind.read?.(value as string) : value;
  }
  return { ...typed, command: kind, ...(data === undefined ? {} : { data }) };
}
