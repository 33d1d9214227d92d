/** What a model tells of itself: the channels of its images, its classes. */
import { makeError } from '../errors';
import { ClassifierModel } from '../models/classifier-model';
import { Linear } from '../nn/layers';
import { Module } from '../nn/module';

/** Channels of the images that a module takes; 0 if it does not say, as with a forward in TypeScript. */
export function moduleChannels(model: Module<unknown>): number {
  return Module.runsNatively(model) ? Module.widthOf(model)[0] : 0;
}

/** @throws ERR_SENET_ARG_RANGE unless images have so many channels */
export function checkImageChannels(channels: number, where: string): number {
  if (channels === 1 || channels === 3) return channels;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: the network takes ${channels} channels, and images have 1 (grey) or 3 (colour)`,
  );
}

/** Outputs of the classifier; in a module of one's own of the layer called `fc`, as in torchvision's. Else undefined. */
export function moduleClasses(model: Module<unknown>): number | undefined {
  const head =
    model instanceof ClassifierModel
      ? model.getClassifier()
      : model.namedChildren().find(([name]) => name === 'fc')?.[1];
  return head instanceof Linear ? head.outFeatures : undefined;
}
