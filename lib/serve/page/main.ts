/** The page: which image is looked at and how, and what is drawn of it. */
import type { ClassExcitationsJson } from '../page-data';
import { at, button, choice, complain, el, fill, say } from './dom';
import { excitationView, type ExcitationState } from './excitation-view';
import { figureView, type FigureState } from './figure-view';
import { keyView } from './key-view';
import { labelsView, mapView } from './picture-view';
import {
  KeyWanted,
  readData,
  ServedImage,
  servedModels,
  StoredImage,
  useKey,
  type Request,
  type Shown,
  type Subject,
} from './source';

/** Of the bundled examples, which the build puts here: data URLs by label. */
declare const EXAMPLES: readonly { readonly label: string; readonly url: string }[];

interface State {
  subjects: Subject[];
  current: Subject | null;
  shown: Shown | null;
  request: Request;
  opacity: number;
  excitation: Omit<ExcitationState, 'gates'>;
  figure: ClassExcitationsJson | null;
  figureState: FigureState;
  models: string[];
  model: string;
  /** What is done once the server has the key that it wants. */
  waiting: (() => Promise<void>) | null;
}

const FIRST: Request = { method: 'gradcam', layer: null, target: null, gates: {} };

const data = readData();
const state: State = {
  subjects: data?.images.map((image) => new StoredImage(image)) ?? [],
  ...{ current: null, shown: null, request: FIRST, opacity: 0.5 },
  excitation: { sorted: true, stretched: false, layer: null },
  figure: data?.figure ?? null,
  figureState: { every: false, band: true, fitted: false, layer: null, by: 'selectivity' },
  ...{ models: [], model: data?.model ?? '', waiting: null },
};
let running: AbortController | undefined;

function draw(): void {
  drawChoices();
  const { current, shown, figure, request } = state;
  const parts: HTMLElement[] = [];
  if (current !== null && shown !== null) {
    parts.push(
      labelsView(shown),
      mapView(
        shown,
        current.choices(shown),
        state.opacity,
        (changed) => void explain({ ...request, ...changed }),
        (opacity) => void (state.opacity = opacity),
      ),
      excitationView(shown, current, { ...state.excitation, gates: request.gates }, ({ gates, ...rest }) => {
        state.excitation = { ...state.excitation, ...rest };
        if (gates === undefined) draw();
        else void explain({ ...request, gates });
      }),
    );
  }
  if (figure !== null) {
    parts.push(
      figureView(figure, state.figureState, (changed) => {
        state.figureState = { ...state.figureState, ...changed };
        draw();
      }),
    );
  }
  fill(at('main'), ...parts);
}

function drawChoices(): void {
  const { subjects, current, models, model, waiting } = state;
  const images = subjects.map((subject, index) => {
    const made = button(subject.name, () => void look(subject), `image ${index}`);
    if (subject === current) made.setAttribute('aria-current', 'true');
    return made;
  });
  fill(
    at('choose'),
    waiting === null ? null : keyView((given) => void unlock(given, waiting)),
    ...(data === null ? [dropZone()] : []),
    models.length > 1
      ? el(
          'div',
          { className: 'controls' },
          choice(
            'Model',
            models.map((one) => [one, one]),
            model,
            chooseModel,
          ),
        )
      : null,
    subjects.length > (data === null ? 0 : 1)
      ? el('div', { className: 'examples', set: { role: 'group', 'aria-label': 'Images' } }, ...images)
      : null,
  );
}

function dropZone(): HTMLElement {
  const input = el('input', {
    ...{ type: 'file', multiple: true, accept: 'image/*,.json' },
    set: { 'data-key': 'files' },
  });
  input.addEventListener('change', () => void take([...(input.files ?? [])]));
  return el(
    'div',
    { className: 'drop' },
    el('label', {}, 'Drop images here, or choose them: ', input),
    el(
      'div',
      { className: 'examples', set: { role: 'group', 'aria-label': 'Examples' } },
      ...EXAMPLES.map(({ label, url }, index) => {
        const made = el(
          'button',
          { type: 'button', title: label, set: { 'data-key': `example ${index}` } },
          el('img', { src: url, alt: `Example ${index + 1}: ${label}` }),
        );
        made.addEventListener('click', () => void takeExample(label, url));
        return made;
      }),
    ),
  );
}

async function takeExample(label: string, url: string): Promise<void> {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(',') + 1)), (character) =>
    character.charCodeAt(0),
  );
  await take([new File([bytes], label, { type: 'image/png' })]);
}

/** Images to explain, or the JSON of `senet-torch excitations` to draw. */
async function take(files: readonly File[]): Promise<void> {
  complain('');
  const added: Subject[] = [];
  for (const file of files) {
    if (/\.json$/i.test(file.name)) await takeFigure(file);
    else added.push(new ServedImage(file.name, file, state.model));
  }
  state.subjects.push(...added);
  const [first] = added;
  if (first === undefined) draw();
  else await look(first);
}

async function takeFigure(file: File): Promise<void> {
  try {
    const figure = JSON.parse(await file.text()) as ClassExcitationsJson;
    if (!Array.isArray(figure.layers) || !Array.isArray(figure.classes))
      throw new Error('it has no layers and classes');
    state.figure = { ...figure, ablation: figure.ablation ?? [] };
  } catch (error) {
    complain(`${file.name} is not what senet-torch excitations --json writes: ${(error as Error).message}`);
  }
}

async function look(subject: Subject): Promise<void> {
  state.current = subject;
  await explain({ ...FIRST, method: state.request.method });
}

function chooseModel(name: string): void {
  state.model = name;
  state.subjects = [];
  state.current = null;
  state.shown = null;
  draw();
  say(`Model ${name}`);
}

async function explain(request: Request): Promise<void> {
  const { current } = state;
  if (current === null) return;
  running?.abort();
  const controller = (running = new AbortController());
  state.request = request;
  document.body.classList.add('busy');
  say(`Looking at ${current.name}`);
  try {
    const shown = await current.show(request, controller.signal);
    if (controller.signal.aborted) return;
    state.shown = shown;
    complain('');
    const [best] = shown.explanation.labels;
    say(best === undefined ? '' : `${current.name}: ${best.label}`);
  } catch (error) {
    if (controller.signal.aborted) return;
    say('');
    fail(error, () => explain(request));
  }
  document.body.classList.remove('busy');
  draw();
}

/** Says what went wrong; where the server wants a key, it is asked for, and what failed is done again. */
function fail(error: unknown, again: () => Promise<void>, before = ''): void {
  const wanted = error instanceof KeyWanted;
  state.waiting = wanted ? again : null;
  complain(wanted ? error.message : `${before}${(error as Error).message}`);
  draw();
  if (wanted) document.querySelector<HTMLInputElement>('[data-key="key"]')?.focus();
}

async function unlock(given: string, again: () => Promise<void>): Promise<void> {
  useKey(given);
  state.waiting = null;
  complain('');
  draw();
  await again();
}

function listenForDrops(): void {
  if (data !== null) return;
  const zone = at('choose');
  const mark = (over: boolean): void => void zone.querySelector('.drop')?.classList.toggle('over', over);
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    mark(true);
  });
  document.addEventListener('dragleave', () => mark(false));
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    mark(false);
    void take([...(event.dataTransfer?.files ?? [])]);
  });
}

/** Plots are as wide as the window lets them. */
function redrawWhenResized(): void {
  let width = document.documentElement.clientWidth;
  let timer = 0;
  addEventListener('resize', () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => {
      if (document.documentElement.clientWidth === width) return; // a phone's bars came or went
      width = document.documentElement.clientWidth;
      draw();
    }, 200);
  });
}

async function start(): Promise<void> {
  listenForDrops();
  redrawWhenResized();
  if (data !== null) {
    const { model, version, images } = data;
    document.title = `What ${model} attends to`;
    at('about').textContent =
      `${model}, senet-torch ${version}; made as a file that needs no network and no server.`;
    const [first] = state.subjects;
    if (first !== undefined) await look(first);
    else draw();
    if (images.length === 0 && state.figure === null) complain('This file holds no image.');
    return;
  }
  at('about').textContent = 'Classifies images on this server, and shows why.';
  draw();
  await askModels();
}

async function askModels(): Promise<void> {
  try {
    state.models = await servedModels();
    state.model = state.models[0] ?? '';
    say(state.model === '' ? '' : `Model ${state.model}`);
    draw();
  } catch (error) {
    fail(error, askModels, 'The server does not say which models it has: ');
  }
}

void start();
