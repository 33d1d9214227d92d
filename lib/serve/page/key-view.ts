/** The question for the key of a server that has one. */
import { el } from './dom';

/** @param onKey - what was typed, which is kept nowhere here */
export function keyView(onKey: (key: string) => void): HTMLFormElement {
  const input = el('input', {
    ...{ type: 'password', required: true, autocomplete: 'off' },
    set: { 'data-key': 'key', 'aria-describedby': 'key-note' },
  });
  const form = el(
    'form',
    { className: 'key controls' },
    el('label', {}, 'Key of this server', input),
    el('button', { type: 'submit' }, 'Use the key'),
    el(
      'p',
      { id: 'key-note', className: 'quiet' },
      'It stays in the memory of this page, goes to this server alone, and is gone when the page is closed or loaded again.',
    ),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    onKey(input.value);
  });
  return form;
}
