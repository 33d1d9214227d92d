/**
 * What follows from the rows of `options.ts`: the text of `--help`, checks, defaults, what a resumed run must have, and the
 * report's table. Loads nothing native.
 */
import { makeError } from '../../errors';
import {
  fn,
  nullOr,
  oneOf,
  optional,
  readOptions,
  required,
  signal,
  string,
  unchecked,
  type Rule,
} from '../../tensor/rules';
import {
  OPTION_ROWS,
  type Callback,
  type ImageCounts,
  type OptionName,
  type OptionRow,
  type RecipeFacts,
  type ReportRows,
  type Words,
} from './options';
import type { RecipeKind, TrainingOptions, TrainingSettings } from './settings';

const ROWS = Object.entries(OPTION_ROWS) as [OptionName, OptionRow][];
const anything = (names: readonly string[]): Readonly<Record<string, Rule<unknown>>> =>
  Object.fromEntries(names.map((name) => [name, unchecked()]));

const RULES = Object.fromEntries(ROWS.map(([name, row]) => [name, ruleOf(row)])) as Readonly<
  Record<OptionName, Rule<unknown>>
>;
const CALLERS_RULES: Readonly<Record<Callback, Rule<unknown>>> = {
  command: optional(oneOf(['train', 'finetune'])),
  data: optional(string),
  progress: unchecked(),
  signal,
  onStart: optional(fn()),
  onProgress: optional(fn()),
};
const TRAINING_RULES = {
  ...CALLERS_RULES,
  ...Object.fromEntries(
    ROWS.filter(([, row]) => row.commandLineOnly === undefined).map(([name]) => [name, RULES[name]]),
  ),
};
const OTHER_SETTINGS = anything(['command', 'data', 'modelOptions', 'classes', 'resize', 'interpolation']);

/** Of the record of a run, by name. */
export const SETTING_RULES = { ...RULES, ...OTHER_SETTINGS };
const SETTING_NAMES = anything(Object.keys(SETTING_RULES));

/** What a row takes; undefined is an option that was left out. */
function ruleOf({ kind: { rule }, nullable }: OptionRow): Rule<unknown> {
  return optional(nullable === true ? nullOr(rule) : rule);
}

/** What `--help` says of an option, its default included. */
export function helpOf({ help = '', default: value, usual }: OptionRow, kind: RecipeKind): string {
  const words = (given: Words): string => (typeof given === 'string' ? given : given(kind));
  const isWord = typeof value === 'number' || typeof value === 'string';
  const said = usual === undefined ? isWord && String(value) : words(usual);
  return [words(help), ...(said === false ? [] : [`(default: ${said})`])]
    .filter((part) => part !== '')
    .join(' ');
}

/**
 * Throws for an option that is none, and for a value that it does not take.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
 */
export function checkTrainingOptions(options: TrainingOptions, where: string): void {
  readOptions<TrainingOptions, Readonly<Record<string, Rule<unknown>>>>(options, TRAINING_RULES, where);
}

/** @throws ERR_SENET_UNKNOWN_OPTION for one that the recipe does not have */
export function checkRecipe(options: TrainingOptions, kind: RecipeKind, where: string): void {
  for (const [name, { only }] of ROWS) {
    if (only === undefined || only === kind || options[name as keyof TrainingOptions] == null) continue;
    throw makeError(
      'ERR_SENET_UNKNOWN_OPTION',
      `${where}: ${name}: an option of ${only}, and this is ${kind}`,
    );
  }
}

function defaultOf({ default: value }: OptionRow, chosen: TrainingSettings, facts: RecipeFacts): unknown {
  return typeof value === 'function' ? value(chosen, facts) : value;
}

/** What was given, and the defaults of the rest: those that rows say. */
export function withDefaults(given: TrainingOptions, facts: RecipeFacts): TrainingSettings {
  const chosen: Record<string, unknown> = {};
  for (const [name, row] of ROWS) {
    if (row.default === undefined) continue;
    chosen[name] =
      given[name as keyof TrainingOptions] ?? defaultOf(row, chosen as unknown as TrainingSettings, facts);
  }
  return chosen as unknown as TrainingSettings;
}

/**
 * Some of the settings, checked, with defaults for the rest of `names`. What else belongs to the settings of a run may
 * stand beside them.
 *
 * @param names - in an order in which defaults follow from those before
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION
 */
export function complete<Name extends OptionName & keyof TrainingSettings>(
  settings: Partial<Pick<TrainingSettings, Name>>,
  names: readonly Name[],
  where: string,
  { required: needed, ...known }: { required?: Name; epochs?: number; smallSize?: number | null } = {},
): Pick<TrainingSettings, Name> {
  const given = readOptions<object, typeof SETTING_NAMES>(settings, SETTING_NAMES, where);
  const chosen = { epochs: known.epochs } as Record<string, unknown>;
  for (const name of names) {
    const value =
      given[name] ??
      (name === needed
        ? undefined
        : defaultOf(OPTION_ROWS[name], chosen as unknown as TrainingSettings, known as RecipeFacts));
    const rule = name === needed ? required(RULES[name]) : RULES[name];
    chosen[name] = rule(value, `${where}: ${name}`);
  }
  return chosen as Pick<TrainingSettings, Name>;
}

/**
 * Options given to a run that goes on must be those that it was started with.
 *
 * @throws ERR_SENET_RESUME
 */
export function checkSameOptions(given: TrainingOptions, settings: TrainingSettings, where: string): void {
  for (const [name, row] of ROWS) {
    const value = given[name as keyof TrainingOptions];
    if (value === undefined || row.free === true) continue;
    const started = row.started?.(settings) ?? settings[name as keyof TrainingSettings] ?? null;
    const forms = value === null ? [null] : (row.recordedAs?.(value as never) ?? [value]);
    if (forms.some((form) => JSON.stringify(form) === JSON.stringify(started))) continue;
    throw makeError(
      'ERR_SENET_RESUME',
      `${where}: resume: the run was started with { ${name}: ${shown(started)} }, not ${shown(forms[0])}; leave the option out, or start another run`,
    );
  }
}

function shown(value: unknown): string {
  return Array.isArray(value) ? value.join(',') || 'none' : value === null ? 'none' : JSON.stringify(value);
}

/** The settings of a run as its report shows them. */
export function settingRows(settings: TrainingSettings, images: ImageCounts): ReportRows {
  return ROWS.flatMap(([, row]) => row.report?.(settings, images) ?? []);
}

/** The record in a checkpoint. @throws ERR_SENET_RESUME if it is not that of a recipe */
export function checkSettings(value: unknown, where: string, label: string): TrainingSettings {
  const names = [
    'command',
    'data',
    'dataset',
    'model',
    'modelOptions',
    'classes',
    'epochs',
    'batchSize',
    'seed',
  ];
  if (typeof value === 'object' && value !== null && names.every((name) => name in value))
    return value as TrainingSettings;
  throw makeError(
    'ERR_SENET_RESUME',
    `${where}: resume: ${label} was saved by a program of its own (class Trainer), which must resume it`,
  );
}
