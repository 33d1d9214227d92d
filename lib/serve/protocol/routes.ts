/** The protocol's paths: health, metadata, inference, and the repository of models that the operator listed. */
import { isPlainObject } from '../../brands';
import { makeError } from '../../errors';
import type { Call, Route } from '../call';
import { jsonResponse, type InferenceResponse } from '../exchange';
import { modelMetadata, serverMetadata } from './datatypes';
import { inferRoute } from './infer';

export const PROTOCOL_ROUTES: readonly Route[] = [
  { method: 'GET', path: '/v2', run: () => jsonResponse(serverMetadata()) },
  {
    method: 'GET',
    path: '/v2/health/live',
    run: ({ server: { live } }) => jsonResponse({ live }, live ? 200 : 503),
  },
  {
    method: 'GET',
    path: '/v2/health/ready',
    run: ({ server: { ready } }) => jsonResponse({ ready }, ready ? 200 : 503),
  },
  {
    method: 'GET',
    path: '/v2/models',
    run: ({ server }) => jsonResponse({ models: server.models.names }),
  },
  ...forEachVersion({ method: 'GET', path: '', run: metadata }),
  ...forEachVersion({ method: 'GET', path: '/ready', run: modelReady }),
  ...forEachVersion({ method: 'POST', path: '/infer', run: inferRoute }),
  { method: 'POST', path: '/v2/repository/index', run: repositoryIndex },
  { method: 'GET', path: '/v2/repository/index', run: repositoryIndex },
  { method: 'POST', path: '/v2/repository/models/:model/load', run: load },
  { method: 'POST', path: '/v2/repository/models/:model/unload', run: unload },
];

function forEachVersion(route: Route): Route[] {
  return ['/v2/models/:model', '/v2/models/:model/versions/:version'].map((path) => ({
    ...route,
    path: `${path}${route.path}`,
  }));
}

function metadata({ server: { models }, parameters }: Call): InferenceResponse {
  const model = models.find(parameters.model, parameters.version);
  const versions = models.versionsOf(model.name).filter(({ state }) => state === 'READY');
  return jsonResponse(
    modelMetadata(
      model,
      versions.map(({ version }) => version),
    ),
  );
}

function modelReady({ server: { models }, parameters }: Call): InferenceResponse {
  const { model = '', version } = parameters;
  const states = models.versionsOf(model).filter((one) => version === undefined || one.version === version);
  if (states.length === 0) models.find(model, version); // says that there is no such version
  const ready = states.some(({ state }) => state === 'READY');
  return jsonResponse({ name: model, ready }, ready ? 200 : 503);
}

/** Triton's: the body may ask for those that are ready alone. */
async function repositoryIndex({ server: { models }, request, body }: Call): Promise<InferenceResponse> {
  const bytes = request.method === 'POST' ? await body.bytes() : Buffer.alloc(0);
  const { ready } = bytes.length === 0 ? {} : await body.json();
  const listed = models.all.filter(({ state }) => ready !== true || state === 'READY');
  return jsonResponse(listed);
}

async function load(call: Call): Promise<InferenceResponse> {
  const { model = '' } = call.parameters;
  await refuseSettings(call);
  await call.server.models.load(model, versionOf(call));
  return jsonResponse({ name: model, load: true });
}

async function unload(call: Call): Promise<InferenceResponse> {
  const { model = '' } = call.parameters;
  await refuseSettings(call);
  await call.server.models.unload(model, versionOf(call));
  return jsonResponse({ name: model, unload: true });
}

/** Which of several versions: none is all of them. */
function versionOf({ query }: Call): string | undefined {
  return query.get('version') ?? undefined;
}

/** Triton lets a request say how a model is configured, and bring its files. Here the operator does. */
async function refuseSettings({ body }: Call): Promise<void> {
  if ((await body.bytes()).length === 0) return;
  const { parameters } = await body.json();
  if (parameters === undefined || parameters === null) return;
  const names = isPlainObject(parameters) ? Object.keys(parameters) : ['parameters'];
  if (names.every((name) => name === 'unload_dependents')) return;
  throw makeError('ERR_SENET_FORBIDDEN', `what a model is made of is the operator's to say, not a request's`);
}
