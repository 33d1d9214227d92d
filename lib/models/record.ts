/**
 * What is known of a model, in one record, as timm's `pretrained_cfg`. A page (`se-resnet.ts`, ...) says once what the
 * networks of its class share, and has a row for each of them; the registry joins the pages, and everything else reads
 * the records. Knows no page, and reads no file.
 */
import type { Identity, Linear } from '../nn/layers';
import type { KeyAlias, ShapeOf, Spelling } from '../nn/load-state-dict';
import type { Module } from '../nn/module';
import type { Rules } from '../tensor/rules';
import type { Preprocessing } from './preprocessing-record';

/** Weights that a record offers by name. */
export interface PublishedWeights {
  /** The model that they are of. */
  readonly model: string;
  readonly name: string;
  /**
   * A file of `assets/weights`, which is part of the package; a URL that is downloaded once; or a repository of the
   * Hugging Face hub, with a URL for where that is out of reach.
   */
  readonly location:
    { readonly bundled: string } | { readonly url: string } | { readonly hub: string; readonly url?: string };
  /** The SHA-256 of the file by URL, or how it begins, in hexadecimal: a download must have it. The hub says its own. */
  readonly sha256: string | null;
  /** An SPDX identifier. */
  readonly licence: string;
  /** Accuracy in percent, on the test images of the data that they were trained on; null if nobody published it. */
  readonly top1: number | null;
  /** Side of the images at which it was measured. Default: the usual one. */
  readonly top1Size?: number;
  /** The same in percent, of images with the right class among the first five. */
  readonly top5?: number;
  /** `top1` of images prepared by `testPreprocessing`. */
  readonly testTop1?: number;
  /** Default: the model's. */
  readonly numClasses?: number;
  /** Of their tensors in float32. Default: as many as of the model with its usual classes. */
  readonly bytes?: number;
  /** Default: the model's. */
  readonly inChannels?: number;
  /** A file of `assets/labels`. Default: what the metadata of the file of weights says. */
  readonly labels?: string;
  /** Default: what the metadata of the file of weights says, else the model's. */
  readonly preprocessing?: Preprocessing;
  /** For larger images than in training, at which the network is better: timm's `use_test_size`. */
  readonly testPreprocessing?: Preprocessing;
}

/** What options are read from: the shapes of weights by the model's own keys, and the text that the file carries. */
export interface WeightFacts {
  readonly shapeOf: ShapeOf;
  readonly metadata: ReadonlyMap<string, string>;
}

/** How a framework spells the keys of networks that this library has. */
export interface KeyMap extends Spelling {
  readonly framework: string;
  /** How it spells the path of the first block. Default: as the network does. */
  readonly firstBlock?: string;
}

/** What the models of one class share. */
export interface ModelFamily {
  /** Height and width of the images that the model was designed for. */
  readonly inputSize: number;
  /** False if it takes `inputSize` only. */
  readonly anyInputSize: boolean;
  /** The default of `inChannels`. */
  readonly inChannels: number;
  /** The default of `numClasses`; null if it is required. */
  readonly numClasses: number | null;
  /** @internal The options of its factory: `numClasses`, `inChannels` and `initWeights` are everyone's. */
  readonly rules: Rules<Record<string, unknown>>;
  /** Those of them that shapes do not tell: the metadata of a file does, under the same name. */
  readonly toldOptions: readonly string[];
  /** Path of the convolution that takes the image. */
  readonly stem: string;
  /** Path of the Linear that gives the logits. */
  readonly classifier: string;
  /** Paths of those that give others in training, where the options leave them in. */
  readonly auxiliaryClassifiers: readonly string[];
  /** Whether some of its options leave layers that its forward never calls. Default false. */
  readonly hasUncalledLayers?: boolean;
  /** How images become its input where the weights do not say; null if nothing is usual. */
  readonly preprocessing: Preprocessing | null;
  /** Whose spelling its keys have. */
  readonly framework: string;
  /** Path of the first block that has the mark, in that spelling, from its last two words on: where `recognise` looks. */
  readonly firstBlock: string;
  /** A key of it by which a state dict is known as one of this class. */
  readonly mark: RegExp;
  /**
   * Whether weights for other classes and channels are adapted, as timm does it; else they are refused, as by PyTorch.
   */
  readonly adaptsWeights: boolean;
  /** How files of other frameworks spell its keys. */
  readonly keyMaps: readonly KeyMap[];
  /** How a published file of it is called, where that says how the file's SHA-1 begins: its group. */
  readonly publishedFile?: RegExp;
  /** Keys whose shapes follow from options, and keys that options leave out. Default: none. */
  readonly optionKeys?: { readonly shapes: RegExp; readonly names: RegExp };
  /** The options that weights of these shapes need, but for the classes and the channels. */
  readonly optionsFrom: (weights: WeightFacts) => Readonly<Record<string, unknown>>;
}

/** A network with a head that can be asked for and changed: a `ClassifierModel`. */
export interface ClassifyingModule extends Module<unknown> {
  getClassifier(): Linear | Identity;
  resetClassifier(numClasses: number): void;
}

type Create = (...args: never[]) => ClassifyingModule;

/** What the library knows of a model. */
export interface ModelRecord<Factory extends Create = Create> extends ModelFamily {
  readonly name: string;
  /** The names of the options of its factory. */
  readonly options: readonly string[];
  /** Makes one, with initial weights. */
  readonly create: Factory;
  /** The first is what `pretrained: true` means. */
  readonly weights: readonly PublishedWeights[];
}

/** What differs within a class stands in the row; the places of its parts cannot. */
type Differing = Omit<
  ModelFamily,
  | 'classifier'
  | 'auxiliaryClassifiers'
  | 'hasUncalledLayers'
  | 'firstBlock'
  | 'mark'
  | 'keyMaps'
  | 'optionKeys'
>;

interface Row extends Partial<Differing> {
  readonly create: Create;
  readonly weights?: readonly Omit<PublishedWeights, 'model'>[];
}

const records = new WeakMap<object, ModelRecord>();

/** The record that a network was made by; undefined of one that its class or a function of its own made. */
export function recordBehind(model: Module<unknown>): ModelRecord | undefined {
  return records.get(model);
}

/** The records of a page: what all share, and a row for each name. */
export function defineModels<Rows extends Readonly<Record<string, Row>>>(
  family: ModelFamily,
  rows: Rows,
): { readonly [Name in keyof Rows]: ModelRecord<Rows[Name]['create']> } {
  const made = Object.entries(rows).map(([name, row]) => {
    const weights = (row.weights ?? []).map((entry) => Object.freeze({ ...entry, model: name }));
    const create: Create = (...args) => {
      const model = row.create(...args);
      records.set(model, record);
      return model;
    };
    const record: ModelRecord = Object.freeze({
      ...family,
      ...row,
      create,
      name,
      options: Object.freeze(Object.keys({ ...family, ...row }.rules)),
      weights: Object.freeze(weights),
    });
    return [name, record] as const;
  });
  return Object.fromEntries(made) as unknown as ReturnType<typeof defineModels<Rows>>;
}

/** The other spellings of the keys of some network of a class. */
export function aliasesOf({ keyMaps }: Pick<ModelFamily, 'keyMaps'>): readonly KeyAlias[] {
  return keyMaps.flatMap(({ aliases }) => aliases);
}
