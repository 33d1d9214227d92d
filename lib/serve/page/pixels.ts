/** Pictures, maps and gates as pixels. */
import * as Plot from '@observablehq/plot';

import type { PictureJson } from '../../vision/explanation';

export interface Grid {
  readonly width: number;
  readonly height: number;
  readonly data: ArrayLike<number>;
}

type Colours = Uint8ClampedArray;

/** 256 colours of a scheme of Plot's. */
function coloursOf(scheme: Plot.ColorScheme): Colours {
  const scale = Plot.scale({ color: { type: 'linear', scheme, domain: [0, 255] } });
  const context = canvasOf(1, 1).context;
  const colours = new Uint8ClampedArray(256 * 3);
  for (let value = 0; value < 256; value++) {
    context.fillStyle = String(scale.apply(value));
    context.fillRect(0, 0, 1, 1);
    colours.set(context.getImageData(0, 0, 1, 1).data.subarray(0, 3), 3 * value);
  }
  return colours;
}

const known = new Map<string, Colours>();
function colours(scheme: Plot.ColorScheme): Colours {
  let found = known.get(scheme);
  if (found === undefined) known.set(scheme, (found = coloursOf(scheme)));
  return found;
}

function canvasOf(
  width: number,
  height: number,
): { canvas: HTMLCanvasElement; context: CanvasRenderingContext2D } {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return { canvas, context: contextOf(canvas) };
}

function contextOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (context === null) throw new Error('this browser has no canvas');
  return context;
}

function bytesOf(base64: string): Uint8ClampedArray {
  return Uint8ClampedArray.from(atob(base64), (character) => character.charCodeAt(0));
}

/** One number for each pixel, from 0 to 1. */
export function gridOf({ width, height, data }: PictureJson): Grid {
  return { width, height, data: Float32Array.from(bytesOf(data), (byte) => byte / 255) };
}

/** Paints RGB bytes. */
function paintPicture({ width, height, data }: PictureJson): HTMLCanvasElement {
  const { canvas, context } = canvasOf(width, height);
  const bytes = bytesOf(data);
  const image = context.createImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let colour = 0; colour < 3; colour++)
      image.data[4 * pixel + colour] = bytes[3 * pixel + colour] as number;
    image.data[4 * pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** How often each side of a small picture is repeated, so that it is large enough to be looked at. */
function enlargement(width: number): number {
  return Math.max(1, Math.floor(320 / width));
}

/** A picture with a map over it, as a canvas. */
export function overlay(picture: PictureJson, map: Grid | null, opacity: number): HTMLCanvasElement {
  const factor = enlargement(picture.width);
  const { canvas, context } = canvasOf(picture.width * factor, picture.height * factor);
  context.imageSmoothingEnabled = false;
  context.drawImage(paintPicture(picture), 0, 0, canvas.width, canvas.height);
  if (map !== null) {
    const above = paintGrid(resized(map, canvas.width, canvas.height), 'turbo');
    context.globalAlpha = opacity;
    context.drawImage(above, 0, 0);
  }
  canvas.className = factor > 1 ? 'picture pixelated' : 'picture';
  return canvas;
}

/** Numbers from 0 to 1 as colours, a pixel each. */
export function paintGrid({ width, height, data }: Grid, scheme: Plot.ColorScheme): HTMLCanvasElement {
  const { canvas, context } = canvasOf(width, height);
  const image = context.createImageData(width, height);
  const table = colours(scheme);
  for (let pixel = 0; pixel < width * height; pixel++) {
    const place = 3 * Math.max(0, Math.min(255, Math.round(255 * (data[pixel] as number))));
    image.data.set(table.subarray(place, place + 3), 4 * pixel);
    image.data[4 * pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Bilinear with half-pixel centres, as the library's `resizeMap`. */
function resized({ width, height, data }: Grid, toWidth: number, toHeight: number): Grid {
  const result = new Float32Array(toWidth * toHeight);
  const places = (from: number, to: number): [number, number, number][] =>
    Array.from({ length: to }, (_, index) => {
      const place = Math.max(0, ((index + 0.5) * from) / to - 0.5);
      const low = Math.min(from - 1, Math.floor(place));
      return [low, Math.min(from - 1, low + 1), place - low];
    });
  const columns = places(width, toWidth);
  for (const [y, [top, bottom, down]] of places(height, toHeight).entries()) {
    for (const [x, [left, right, across]] of columns.entries()) {
      const value = (row: number, column: number): number => data[row * width + column] as number;
      const upper = value(top, left) * (1 - across) + value(top, right) * across;
      const lower = value(bottom, left) * (1 - across) + value(bottom, right) * across;
      result[y * toWidth + x] = upper * (1 - down) + lower * down;
    }
  }
  return { width: toWidth, height: toHeight, data: result };
}

/** The colours of 0 to 1, from left to right. */
export function scaleBar(scheme: Plot.ColorScheme): HTMLCanvasElement {
  const data = Float32Array.from({ length: 256 }, (_, place) => place / 255);
  return paintGrid({ width: 256, height: 1, data }, scheme);
}
