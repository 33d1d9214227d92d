/** `scripts/checks/protocol.js`: it accepts what agrees with ours, and notices each way to differ. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { openApi } from '../../lib/serve/open-api';
import { PROTO } from '../support/grpc';
import { Temporary } from '../support/temporary';

const SCRIPT = path.join(__dirname, '..', '..', 'scripts', 'checks', 'protocol.js');

const OURS = `syntax = "proto3";
package inference;
enum Kind { NONE = 0; SOME = 1; }
message Ask { string name = 1; repeated int64 shape = 2; map<string, Value> more = 3; Kind kind = 4; }
message Value { oneof choice { bool yes = 1; int64 number = 2; } }
message Answer { bytes raw = 1; }
service Service { rpc Infer(Ask) returns (Answer); }
`;

const API = `openapi: 3.0.0
paths:
  /v2/models/{model}/infer:
    post:
      requestBody: { content: { application/json: { schema: { $ref: '#/components/schemas/ask' } } } }
      responses: { '200': { content: { application/json: { schema: { $ref: '#/components/schemas/answer' } } } } }
components:
  schemas:
    ask:
      type: object
      properties: { id: { type: string }, inputs: { type: array, items: { $ref: '#/components/schemas/tensor' } } }
      required: [inputs]
    answer:
      type: object
      properties: { name: { type: string }, times: { type: array, items: { type: number } } }
      required: [name]
    tensor:
      type: object
      properties: { name: { type: string }, shape: { type: array, items: { type: integer } } }
      required: [name, shape]
`;

describe('the check of the protocol', function () {
  this.timeout(60_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  function check(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(process.execPath, [SCRIPT, ...args], { encoding: 'utf8' });
  }
  function file(name: string, text: string): string {
    writeFileSync(temporary.path(name), text);
    return temporary.path(name);
  }

  it('accepts our own files', () => {
    const api = file('own.json', JSON.stringify(openApi()));
    const { status, stdout, stderr } = check(PROTO, api);
    expect([status, stderr], stderr).to.deep.equal([0, '']);
    expect(stdout)
      .to.match(/inference\.proto: 7\d compared/)
      .and.to.match(/own\.json: \d\d+ compared/);
  });

  it('wants files, and something in them', () => {
    expect(check()).to.include({ status: 2 });
    const { status, stderr } = check(file('empty.yaml', 'openapi: 3.0.0\npaths: {}'));
    expect([status, stderr]).to.deep.equal([1, 'empty.yaml: nothing in it could be compared\n']);
  });

  it('notices what differs in services, methods, messages, numbers and types', () => {
    const ours = file('ours.proto', OURS);
    const cases: [from: string | RegExp, to: string, says: RegExp][] = [
      [
        'rpc Infer(Ask)',
        'rpc Infer(stream Ask)',
        /Service\.Infer: ours is rpc \(Ask\).*theirs is rpc \(stream Ask\)/,
      ],
      ['returns (Answer)', 'returns (Value)', /Service\.Infer: .*theirs is rpc \(Ask\) returns \(Value\)/],
      ['rpc Infer(', 'rpc Predict(', /Service\.Infer is ours alone[^]*Service\.Predict is not in ours/],
      [
        'service Service',
        'service Other',
        /inference\.Service is ours alone[^]*inference\.Other is not in ours/,
      ],
      ['package inference', 'package other', /inference\.Ask is ours alone[^]*other\.Ask is not in ours/],
      ['name = 1', 'name = 7', /Ask\.name: ours is field 1: .*theirs is field 7/],
      ['string name', 'bytes name', /Ask\.name: .*TYPE_STRING, theirs is .*TYPE_BYTES/],
      ['string name', 'string called', /Ask\.name is ours alone[^]*Ask\.called is not in ours/],
      ['repeated int64', 'int64', /Ask\.shape: .*REPEATED.*theirs is .*OPTIONAL/],
      ['map<string, Value>', 'map<string, Answer>', /Ask\.More\.value: .*Value, theirs is .*Answer/],
      [
        'oneof choice { bool yes = 1; int64 number = 2; }',
        'bool yes = 1; int64 number = 2;',
        /Value\.yes: .* of choice/,
      ],
      ['SOME = 1', 'SOME = 2', /SOME: ours is value 1, theirs is value 2/],
      ['bytes raw = 1;', '', /Answer\.raw is ours alone/],
      ['bytes raw = 1;', 'bytes raw = 1; bool more = 2;', /Answer\.more is not in ours/],
    ];
    // One process for all: each is a file of its own, and so a line that begins with its name.
    const files = cases.map(([from, to], index) => file(`case-${index}.proto`, OURS.replace(from, to)));
    const { status, stderr } = check('--ours-proto', ours, ...files);
    expect(status).to.equal(1);
    for (const [index, [, to, says]] of cases.entries()) {
      const lines = stderr.split('\n').filter((line) => line.startsWith(`case-${index}.proto: `));
      expect(lines.join('\n'), to).to.match(says);
    }
    const more = file('more.proto', `${OURS}message More { bool more = 1; }\n`);
    expect(check('--ours-proto', ours, '--common', more)).to.include({ status: 0 });
    expect(check('--ours-proto', ours, '--common', files[5] as string)).to.include({ status: 1 });
  });

  it('notices what differs in paths, methods, and what is sent and answered', () => {
    const ours = file('ours.yaml', API);
    const cases: [from: string, to: string, says: RegExp | null][] = [
      ['{model}', '${MODEL_NAME}', null],
      ['/infer:', '/infer/:', null],
      ['required: [name, shape]', 'required: [name, shape, other]', null],
      ['times: { type', 'extra: { type', null],
      ['/infer:', '/predict:', /POST \/v2\/models\/\{\}\/predict is not in ours/],
      ['post:', 'put:', /PUT .*infer is not in ours/],
      ['id: { type: string }', 'id: { type: integer }', /request\.id: ours is string, theirs is integer/],
      ['id: { type: string }', 'key: { type: string }', /request\.key is not in ours/],
      [
        'items: { type: integer }',
        'items: { type: string }',
        /request\.inputs\[\]\.shape\[\]: ours is integer/,
      ],
      [
        'required: [name, shape]',
        'required: [name]',
        /request\.inputs\[\]\.shape: ours is required, and clients may/,
      ],
      [
        'items: { type: number }',
        'items: { type: string }',
        /200\.times\[\]: ours is number, theirs is string/,
      ],
      ['required: [name]', 'required: [name, times]', /200\.times: clients count on it/],
      ["'200'", "'404'", /404 is not in ours/],
    ];
    const files = cases.map(([from, to], index) =>
      file(
        `case-${index}.yaml`,
        API.replace(from, () => to),
      ),
    );
    const { status, stderr } = check('--ours-openapi', ours, ...files);
    expect(status).to.equal(1);
    for (const [index, [from, to, says]] of cases.entries()) {
      expect(readFileSync(files[index] as string, 'utf8'), from).to.not.equal(API);
      const lines = stderr.split('\n').filter((line) => line.startsWith(`case-${index}.yaml: `));
      if (says === null) expect(lines, to).to.deep.equal([]);
      else expect(lines.join('\n'), to).to.match(says);
    }
  });
});
