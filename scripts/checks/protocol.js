#!/usr/bin/env node
'use strict';
// Compares what we say of the Open Inference Protocol with files that are at hand:
//   node scripts/checks/protocol.js open_inference_grpc.proto open_inference_rest.yaml
// Of a .proto: services, methods, messages, fields with number, type and label. Of a .yaml or .json (OpenAPI): paths, methods,
// and what a client that keeps to the file sends and is answered. --common: only what both
// have, for files that are not the protocol's own, as Triton's grpc_service.proto. --ours-proto and --ours-openapi FILE take the place of ours; tests give some that differ.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');

const ROOT = path.join(__dirname, '..', '..');
const { values: options, positionals: files } = parseArgs({
  options: {
    common: { type: 'boolean', default: false },
    'ours-proto': { type: 'string', default: path.join(ROOT, 'assets', 'serve', 'inference.proto') },
    'ours-openapi': { type: 'string' },
  },
  allowPositionals: true,
});

// Protocol buffers

/** Each thing of a .proto by name, as a line that says all that a client must agree on. */
function factsOf(file) {
  const loader = require('@grpc/proto-loader');
  const definition = loader.loadSync(file, {
    keepCase: true,
    includeDirs: [path.dirname(path.resolve(file))],
  });
  const facts = new Map();
  for (const [name, one] of Object.entries(definition)) {
    if (name.startsWith('google.')) continue;
    if (one.type?.field !== undefined) addMessage(facts, name, one.type);
    else if (one.type?.value !== undefined)
      for (const { name: value, number } of one.type.value) facts.set(`${name}.${value}`, `value ${number}`);
    else addService(facts, name, one);
  }
  return facts;
}

function addService(facts, name, methods) {
  facts.set(name, 'service');
  for (const [method, { requestStream, responseStream, requestType, responseType }] of Object.entries(
    methods,
  )) {
    const [request, response] = [
      [requestStream, requestType],
      [responseStream, responseType],
    ].map(([stream, { type }]) => `${stream ? 'stream ' : ''}${type.name}`);
    facts.set(`${name}.${method}`, `rpc (${request}) returns (${response})`);
  }
}

function addMessage(facts, name, { field: fields, nestedType: nested = [], oneofDecl: choices = [] }) {
  facts.set(name, 'message');
  for (const { name: field, number, label, type, typeName, oneofIndex, proto3Optional } of fields) {
    // Scopes are written in several ways.
    const of = typeName ? ` ${typeName.split('.').at(-1)}` : '';
    const choice = choices[oneofIndex ?? -1]?.name;
    const among = choice === undefined || proto3Optional ? '' : ` of ${choice}`;
    facts.set(`${name}.${field}`, `field ${number}: ${label} ${type}${of}${among}`);
  }
  for (const one of nested) if (one.options?.mapEntry) addMessage(facts, `${name}.${one.name}`, one);
}

function compareProto(file, tell) {
  const [ours, theirs] = [factsOf(options['ours-proto']), factsOf(file)];
  let common = 0;
  for (const [name, fact] of ours) {
    const other = theirs.get(name);
    if (other === undefined && !options.common) tell(`${name} is ours alone (${fact})`);
    if (other !== undefined) common++;
    if (other !== undefined && other !== fact) tell(`${name}: ours is ${fact}, theirs is ${other}`);
  }
  for (const [name, fact] of theirs)
    if (!ours.has(name) && !options.common) tell(`${name} is not in ours (${fact})`);
  return common;
}

// OpenAPI

function readApi(file) {
  return require('yaml').parse(readFileSync(file, 'utf8'));
}

function ourApi() {
  if (options['ours-openapi'] !== undefined) return readApi(options['ours-openapi']);
  require('tsx/cjs');
  return JSON.parse(JSON.stringify(require('../../lib/serve/open-api').openApi()));
}

/** Operations by method and path, whatever its parameters are called: 'GET /v2/models/{}'. */
function operationsOf({ paths }) {
  const verbs = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'];
  return new Map(
    Object.entries(paths).flatMap(([template, item]) => {
      const plain = template.replaceAll(/\$?\{[^}]*\}/g, '{}').replace(/(.)\/$/, '$1');
      return verbs
        .filter((verb) => item[verb] !== undefined)
        .map((verb) => [`${verb.toUpperCase()} ${plain}`, item[verb]]);
    }),
  );
}

/** Looks at schemas beside each other: `asked` is what clients send, else what they are answered. */
class Comparison {
  constructor(ours, theirs, asked, tell) {
    Object.assign(this, { ours, theirs, asked, tell, seen: new Set(), count: 0 });
  }

  compare(our, their, where) {
    const pair = `${JSON.stringify(our?.$ref)} ${JSON.stringify(their?.$ref)}`;
    if (their?.$ref !== undefined && this.seen.has(pair)) return;
    this.seen.add(pair);
    const [left, right] = [resolve(this.ours, our), resolve(this.theirs, their)];
    if (right === undefined) return;
    if (left === undefined) {
      this.tell(`${where} is not in ours`);
      return;
    }
    this.count++;
    const [mine, its] = [typesOf(left), typesOf(right)];
    if (its.length > 0 && mine.length > 0 && !its.some((type) => mine.includes(type)))
      this.tell(`${where}: ours is ${mine.join(' or ')}, theirs is ${its.join(' or ')}`);
    if (right.items !== undefined && left.items !== undefined)
      this.compare(left.items, right.items, `${where}[]`);
    this.#compareProperties(left, right, where);
  }

  #compareProperties(left, right, where) {
    const [wanted = [], given = []] = this.asked
      ? [left.required, right.required]
      : [right.required, left.required];
    for (const name of wanted) {
      if (given.includes(name)) continue;
      this.tell(
        this.asked
          ? `${where}.${name}: ours is required, and clients may leave it out`
          : `${where}.${name}: clients count on it, and ours may leave it out`,
      );
    }
    for (const [name, schema] of Object.entries(right.properties ?? {})) {
      const our = left.properties?.[name];
      // An answer need not have all that it may have.
      if (our === undefined && !this.asked && !(right.required ?? []).includes(name)) continue;
      if (our === undefined && left.properties === undefined) continue;
      this.compare(our, schema, `${where}.${name}`);
    }
  }
}

function resolve(document, schema) {
  if (schema?.$ref === undefined) return schema;
  const [, ...steps] = schema.$ref.split('/');
  return steps.reduce((place, step) => place?.[step], document);
}

function typesOf({ type }) {
  return type === undefined ? [] : [type].flat();
}

function compareApi(file, tell) {
  const [ours, theirs] = [ourApi(), readApi(file)];
  const [mine, its] = [operationsOf(ours), operationsOf(theirs)];
  const schemaOf = (body) => body?.content?.['application/json']?.schema;
  let count = 0;
  for (const [name, operation] of its) {
    const our = mine.get(name);
    if (our === undefined) {
      if (!options.common) tell(`${name} is not in ours`);
      continue;
    }
    count++;
    const asked = new Comparison(ours, theirs, true, tell);
    asked.compare(schemaOf(our.requestBody), schemaOf(operation.requestBody), `${name}: request`);
    count += asked.count;
    for (const [status, response] of Object.entries(operation.responses)) {
      const answered = new Comparison(ours, theirs, false, tell);
      const answer = our.responses[status] ?? our.responses.default;
      if (answer === undefined) tell(`${name}: ${status} is not in ours`);
      else answered.compare(schemaOf(answer), schemaOf(response), `${name}: ${status}`);
      count += answered.count;
    }
  }
  return count;
}

if (files.length === 0) {
  console.error('expected files of the protocol: a .proto, and an OpenAPI document (.yaml, .json)');
  process.exit(2);
}
const problems = [];
for (const file of files) {
  const compare = file.endsWith('.proto') ? compareProto : compareApi;
  const count = compare(file, (problem) => problems.push(`${path.basename(file)}: ${problem}`));
  if (count === 0) problems.push(`${path.basename(file)}: nothing in it could be compared`);
  else console.log(`${path.basename(file)}: ${count} compared`);
}
for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;
