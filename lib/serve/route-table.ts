/** Every path of a server, and which option says whether it is there. */
import type { Call, Route } from './call';
import { classifyRoute, explainRoute } from './classify-routes';
import { bytesResponse, jsonResponse, type InferenceResponse } from './exchange';
import { docsPage, frontPage } from './pages';
import { openApi } from './open-api';
import { PROTOCOL_ROUTES } from './protocol/routes';
import { EXPOSITION_TYPE, expositionText } from './instruments';

export interface OptionalRoute extends Route {
  /** The option without which it is not there. */
  readonly only?: 'metrics' | 'docs' | 'page';
}

export const ROUTES: readonly OptionalRoute[] = [
  { method: 'GET', path: '/', only: 'page', run: frontPage },
  { method: 'POST', path: '/classify', run: classifyRoute },
  { method: 'POST', path: '/explain', run: explainRoute },
  ...PROTOCOL_ROUTES,
  { method: 'GET', path: '/metrics', only: 'metrics', run: metrics },
  { method: 'GET', path: '/openapi.json', only: 'docs', run: () => jsonResponse(openApi()) },
  { method: 'GET', path: '/docs', only: 'docs', run: docsPage },
];

function metrics({ server }: Call): InferenceResponse {
  const { models, ready, bodies } = server;
  const text = expositionText(server.metrics.families(models, ready, bodies.used));
  return bytesResponse(Buffer.from(text), EXPOSITION_TYPE);
}
