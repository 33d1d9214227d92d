/**
 * The OpenAPI 3.1 document of a server. Its paths for inference are those of the Open Inference Protocol, version 2
 * (`inference_rest.md`), written here anew: the official document has versioned paths only and no templates that a
 * validator takes.
 */
import { ERROR_CODES } from '../errors';
import { packageVersion } from '../package-root';
import { INPUT_DATATYPES, OUTPUT_NAMES } from './protocol/datatypes';

type Json = Readonly<Record<string, unknown>>;

const text = { type: 'string' } as const;
const bool = { type: 'boolean' } as const;
const count = { type: 'integer', minimum: 1 } as const;
const decimal = { type: 'number' } as const;
const listOf = (items: Json): Json => ({ type: 'array', items });
const object = (properties: Json, required: readonly string[] = Object.keys(properties)): Json => ({
  ...{ type: 'object', properties },
  ...(required.length === 0 ? {} : { required }),
});
const refer = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
const json = (schema: Json): Json => ({ content: { 'application/json': { schema } } });
const answer = (description: string, schema: Json): Json => ({ description, ...json(schema) });
const FAILED = { default: answer('An error, with its code.', refer('Error')) };

const tensor = (more: Json, required: readonly string[] = []): Json =>
  object(
    {
      name: text,
      shape: listOf({ type: 'integer', minimum: -1 }),
      datatype: text,
      parameters: { type: 'object' },
      ...more,
    },
    ['name', 'shape', 'datatype', ...required],
  );

const SCHEMAS: Json = {
  Error: object({
    error: { ...text, description: 'What was expected, and what came.' },
    code: { type: ['string', 'null'], enum: [...Object.keys(ERROR_CODES), null] },
  }),
  Classification: object({ label: text, index: { type: 'integer' }, score: decimal }),
  Times: {
    ...object(
      {
        ...{ total: decimal, queue: decimal, decode: decimal, preprocess: decimal, wait: decimal },
        ...{ network: decimal, batch: { ...count, description: 'Images that ran together.' } },
      },
      ['total'],
    ),
    description: 'Milliseconds.',
  },
  Classified: object(
    {
      ...{ model: text, version: text, labels: listOf(refer('Classification')) },
      explanation: { type: 'object' },
      times: refer('Times'),
    },
    ['model', 'version', 'labels', 'times'],
  ),
  ClassifiedList: object({
    ...{ model: text, version: text, times: refer('Times') },
    results: listOf(
      object(
        {
          ...{ name: text, labels: listOf(refer('Classification')), times: refer('Times') },
          error: object({ code: { type: ['string', 'null'] }, status: { type: 'integer' }, message: text }),
        },
        [],
      ),
    ),
  }),
  ImageRequest: {
    ...object(
      {
        image: { ...text, contentEncoding: 'base64', description: 'Also as a data: URL.' },
        url: { ...text, format: 'uri', description: 'Where the operator allows addresses.' },
        images: listOf({
          anyOf: [text, object({ name: text, base64: text, url: text }, [])],
        }),
        ...{
          model: text,
          version: text,
          topK: { ...count, default: 5 },
          explain: { ...bool, default: false },
        },
      },
      [],
    ),
    description: "One of 'image', 'url' and 'images'.",
  },
  ServerMetadata: object({ name: text, version: text, extensions: listOf(text) }),
  ModelMetadata: object({
    ...{ name: text, versions: listOf(text), platform: text },
    ...{ inputs: listOf(tensor({})), outputs: listOf(tensor({})) },
  }),
  InferRequest: object(
    {
      ...{ id: text, parameters: { type: 'object' } },
      inputs: {
        type: 'array',
        minItems: 1,
        maxItems: 1,
        items: tensor({
          datatype: { ...text, enum: INPUT_DATATYPES },
          data: { type: 'array', description: 'Nested or flat; images of BYTES as base64.' },
        }),
      },
      outputs: listOf(
        object({ name: { ...text, enum: OUTPUT_NAMES }, parameters: { type: 'object' } }, ['name']),
      ),
    },
    ['inputs'],
  ),
  InferResponse: object(
    {
      ...{ model_name: text, model_version: text, id: text, parameters: { type: 'object' } },
      outputs: listOf(tensor({ data: { type: 'array' } }, ['data'])),
    },
    ['model_name', 'outputs'],
  ),
};

const path = (name: string, description: string): Json => ({
  ...{ name, in: 'path', required: true, schema: text, description },
});
const query = (name: string, schema: Json, description: string): Json => ({
  ...{ name, in: 'query', schema, description },
});
const MODEL = path('model', 'A name of `GET /v2/models`.');
const VERSION = path('version', 'One of its versions.');
const CHOICE = [
  query('model', text, 'Needed where there are several.'),
  query('version', text, 'Default: the highest that is ready.'),
];

const imageBody: Json = {
  required: true,
  content: {
    'image/*': { schema: { type: 'string', contentMediaType: 'application/octet-stream' } },
    'multipart/form-data': {
      schema: object({ image: { type: 'string', contentMediaType: 'application/octet-stream' } }),
    },
    'application/json': { schema: refer('ImageRequest') },
  },
};

const operation = (
  operationId: string,
  tag: string,
  summary: string,
  parts: { parameters?: readonly Json[]; requestBody?: Json; responses: Json },
): Json => ({ operationId, tags: [tag], summary, ...parts, responses: { ...parts.responses, ...FAILED } });

const get = (
  id: string,
  tag: string,
  summary: string,
  response: Json,
  parameters: readonly Json[] = [],
): Json => ({ get: operation(id, tag, summary, { parameters, responses: { 200: response } }) });

const health = (name: 'live' | 'ready'): Json => {
  const schema = object({ [name]: bool });
  return {
    get: operation(`server${name === 'live' ? 'Live' : 'Ready'}`, 'Health', `Whether the server is ${name}`, {
      responses: { 200: answer('It is.', schema), 503: answer('It is not.', schema) },
    }),
  };
};

/** With the version and without: the protocol has both. */
function versioned(of: (parameters: readonly Json[], suffix: string) => Json, end: string): Json {
  return {
    [`/v2/models/{model}${end}`]: of([MODEL], ''),
    [`/v2/models/{model}/versions/{version}${end}`]: of([MODEL, VERSION], 'Version'),
  };
}

const inferBody: Json = {
  required: true,
  content: {
    'application/json': { schema: refer('InferRequest') },
    'application/octet-stream': {
      schema: {
        type: 'string',
        contentMediaType: 'application/octet-stream',
        description:
          'The JSON, and the bytes of the tensor behind it; the header Inference-Header-Content-Length has the length of the JSON. With 0 there, the body is one image.',
      },
    },
  },
};

const change = (verb: 'load' | 'unload'): Json => ({
  post: operation(
    `${verb}Model`,
    'Repository',
    `${verb === 'load' ? 'Load' : 'Unload'} a model that the operator listed`,
    {
      parameters: [MODEL],
      responses: { 200: answer('Done.', object({ name: text, [verb]: bool })) },
    },
  ),
});

let document: Json | undefined;

export function openApi(): Json {
  document ??= make();
  return document;
}

function make(): Json {
  return {
    openapi: '3.1.0',
    info: {
      title: 'senet-torch',
      version: packageVersion(),
      description: 'Image classification by squeeze-and-excitation networks.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    paths: {
      '/classify': {
        post: operation('classify', 'Images', 'Labels of images, with scores', {
          parameters: [
            ...CHOICE,
            query('topK', { ...count, default: 5 }, 'How many labels.'),
            query('explain', { ...bool, default: false }, 'Whether to say why, too.'),
          ],
          requestBody: imageBody,
          responses: {
            200: answer('Of one image, or a list.', {
              oneOf: [refer('Classified'), refer('ClassifiedList')],
            }),
          },
        }),
      },
      '/explain': {
        post: operation('explain', 'Images', 'What a network attended to', {
          parameters: CHOICE,
          requestBody: imageBody,
          responses: { 200: answer('As `ImageClassifier.explain` has it.', { type: 'object' }) },
        }),
      },
      '/v2': get(
        'serverMetadata',
        'Protocol',
        'Name and extensions',
        answer('Of the server.', refer('ServerMetadata')),
      ),
      '/v2/health/live': health('live'),
      '/v2/health/ready': health('ready'),
      '/v2/models': get(
        'listModels',
        'Protocol',
        'Names of the models',
        answer('All.', object({ models: listOf(text) })),
      ),
      ...versioned(
        (parameters, suffix) =>
          get(
            ...([`modelMetadata${suffix}`, 'Protocol', 'Its input and outputs'] as const),
            ...([answer('Of the model.', refer('ModelMetadata')), parameters] as const),
          ),
        '',
      ),
      ...versioned((parameters, suffix) => {
        const schema = object({ name: text, ready: bool });
        return {
          get: operation(`modelReady${suffix}`, 'Health', 'Whether a model answers', {
            parameters,
            responses: { 200: answer('It does.', schema), 503: answer('It does not.', schema) },
          }),
        };
      }, '/ready'),
      ...versioned(
        (parameters, suffix) => ({
          post: operation(`infer${suffix}`, 'Protocol', 'Scores and logits of images or tensors', {
            parameters: [
              ...parameters,
              {
                name: 'Inference-Header-Content-Length',
                in: 'header',
                schema: { type: 'integer', minimum: 0 },
              },
            ],
            requestBody: inferBody,
            responses: {
              200: answer('Or as binary tensors, where they are asked for.', refer('InferResponse')),
            },
          }),
        }),
        '/infer',
      ),
      '/v2/repository/index': {
        post: operation('repositoryIndex', 'Repository', 'Every version of every model', {
          responses: {
            200: answer(
              'All, or with { "ready": true } those that answer.',
              listOf(object({ name: text, version: text, state: text, reason: text })),
            ),
          },
        }),
      },
      '/v2/repository/models/{model}/load': change('load'),
      '/v2/repository/models/{model}/unload': change('unload'),
      '/metrics': {
        get: operation('metrics', 'Operations', 'Metrics as Prometheus reads them', {
          responses: { 200: { description: 'Text.', content: { 'text/plain': { schema: text } } } },
        }),
      },
    },
    components: { schemas: SCHEMAS },
  };
}
