/** What the page shows as files: SVG, PNG, CSV. */
import { button, complain } from './dom';

type Cell = string | number;

/** Spreadsheets take what begins with these for a formula. */
const FORMULA = /^[=+\-@\t\r]/;

function csvOf(rows: readonly (readonly Cell[])[]): string {
  const cell = (value: Cell): string => {
    const text = typeof value === 'string' && FORMULA.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

function saveText(name: string, type: string, text: string): void {
  saveBlob(name, new Blob([text], { type }));
}

export function saveCanvas(name: string, canvas: HTMLCanvasElement): void {
  canvas.toBlob((blob) =>
    blob === null ? complain('the picture is too large to save') : saveBlob(name, blob),
  );
}

function saveBlob(name: string, blob: Blob): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.+-]+/g, '-');
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function csvButton(name: string, rows: () => readonly (readonly Cell[])[]): HTMLButtonElement {
  const save = (): void => saveText(`${name}.csv`, 'text/csv', csvOf(rows()));
  return button('Save CSV', save, `csv ${name}`);
}

/** Of a plot, which stands by itself once it is saved: black on white. */
export function plotButtons(name: string, svg: () => SVGSVGElement): HTMLButtonElement[] {
  return [
    button('Save SVG', () => saveText(`${name}.svg`, 'image/svg+xml', svgText(svg())), `svg ${name}`),
    button('Save PNG', () => void savePng(name, svg()), `png ${name}`),
  ];
}

function svgText(svg: SVGSVGElement): string {
  const copy = svg.cloneNode(true) as SVGSVGElement;
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  copy.setAttribute('style', 'color: #111; background: #fff');
  const paper = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  for (const [attribute, value] of Object.entries({ width: '100%', height: '100%', fill: '#fff' }))
    paper.setAttribute(attribute, value);
  const style = copy.querySelector('style');
  copy.insertBefore(paper, style?.nextSibling ?? copy.firstChild);
  return new XMLSerializer().serializeToString(copy);
}

async function savePng(name: string, svg: SVGSVGElement): Promise<void> {
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(svgText(svg))}`;
  await image.decode();
  const canvas = document.createElement('canvas');
  const { width, height } = svg.viewBox.baseVal;
  canvas.width = 2 * width;
  canvas.height = 2 * height;
  canvas.getContext('2d')?.drawImage(image, 0, 0, canvas.width, canvas.height);
  saveCanvas(`${name}.png`, canvas);
}
