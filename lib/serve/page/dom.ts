/** Elements, and what is said to who cannot see them. Knows nothing of networks. */

type Child = Node | string | number | null | false;
type Properties<K extends keyof HTMLElementTagNameMap> = {
  [P in keyof HTMLElementTagNameMap[K]]?: HTMLElementTagNameMap[K][P];
} & { set?: Record<string, string | null> };

/** A new element. */
export function el<K extends keyof HTMLElementTagNameMap>(
  name: K,
  { set = {}, ...properties }: Properties<K> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(name), properties);
  for (const [attribute, value] of Object.entries(set))
    if (value !== null) element.setAttribute(attribute, value);
  for (const child of children)
    if (child !== null && child !== false) element.append(typeof child === 'number' ? String(child) : child);
  return element;
}

/** The element of the page with this id. */
export function at(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * Puts new children into an element. What had the focus has it again, if an element with the same `data-key` is among them.
 */
export function fill(parent: Element, ...children: Child[]): void {
  const active = document.activeElement;
  const key = active instanceof HTMLElement && parent.contains(active) ? active.dataset.key : undefined;
  parent.replaceChildren(
    ...children
      .filter((child) => child !== null && child !== false)
      .map((child) => (typeof child === 'number' ? String(child) : child)),
  );
  if (key === undefined) return;
  for (const element of parent.querySelectorAll<HTMLElement>('[data-key]'))
    if (element.dataset.key === key) element.focus({ preventScroll: true });
}

/** A select with its label. */
export function choice<T extends string>(
  label: string,
  options: readonly (readonly [value: T, text: string])[],
  chosen: T,
  onChange: (value: T) => void,
): HTMLLabelElement {
  const select = el(
    'select',
    { set: { 'data-key': `choice ${label}` } },
    ...options.map(([value, text]) => el('option', { value, selected: value === chosen }, text)),
  );
  select.addEventListener('change', () => onChange(select.value as T));
  return el('label', {}, label, select);
}

export function button(text: string, onClick: () => void, key = text): HTMLButtonElement {
  const made = el('button', { type: 'button', set: { 'data-key': key } }, text);
  made.addEventListener('click', onClick);
  return made;
}

export function checkbox(
  label: string,
  checked: boolean,
  onChange: (checked: boolean) => void,
): HTMLLabelElement {
  const box = el('input', { type: 'checkbox', checked, set: { 'data-key': `box ${label}` } });
  box.addEventListener('change', () => onChange(box.checked));
  return el('label', { className: 'line' }, box, label);
}

/** A part of the page with its heading. */
export function section(id: string, title: string, ...children: Child[]): HTMLElement {
  return el(
    'section',
    { id, set: { 'aria-labelledby': `${id}-title` } },
    el('h2', { id: `${id}-title` }, title),
    ...children,
  );
}

/** Says what happens, for eyes and screen readers. */
export function say(text: string): void {
  at('status').textContent = text;
}

export function complain(text: string): void {
  at('problem').textContent = text;
}

/** How wide a plot may be, in pixels: its letters are not scaled. */
export function plotWidth(most: number): number {
  return Math.max(280, Math.min(most, document.documentElement.clientWidth - 70));
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share > 0 && share < 0.001 ? 3 : 1)} %`;
}
