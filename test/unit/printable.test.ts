/** What others wrote, in messages and on terminals: no controls, no new lines, not endless. */
import { expect } from 'chai';

import { inOptionNames } from '../../lib/cli/output';
import { ERROR_CODES, makeError, type ErrorCode } from '../../lib/errors';
import { createModel, load, loadStateDictFromUrl, ops, tensor } from '../../lib/index';
import { printable, printableJson } from '../../lib/printable';

const EVIL = '\u001b[31mred\u001b]0;title\u0007\u009b2K\r\nerror: forged\u2028\u202e';
const RAW = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u202e]/;

async function messageOf(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (error) {
    return (error as Error).message;
  }
  return expect.fail('it should fail');
}

describe('text of others', () => {
  it('is escaped and cut', () => {
    expect(printable(EVIL)).not.to.match(RAW);
    expect(printable('a\nb\u001b[1m')).to.equal('a\\u{a}b\\u{1b}[1m');
    expect(printable('x'.repeat(300))).to.equal(`${'x'.repeat(120)}...`);
    expect(printable('cafe\u0301 \u732b \ud83d\udc69\u200d\ud83d\udd2c')).to.equal(
      'cafe\u0301 \u732b \ud83d\udc69\u200d\ud83d\udd2c',
    );
    expect(printable('\ud83d')).to.equal('\\u{d83d}');
  });

  it('JSON keeps its value', () => {
    const value = { [EVIL]: [EVIL, '\u{1f600}'] };
    const json = printableJson(JSON.stringify(value, null, 2));
    expect(json).not.to.match(RAW);
    expect(JSON.parse(json)).to.deep.equal(value);
  });

  it('no message of any code has it raw', () => {
    for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
      const { message, stack } = makeError(code, `of ${EVIL}`);
      expect(message).not.to.match(RAW);
      expect(message).not.to.include('\n');
      expect(stack?.split('\n')[0]).to.include('forged');
    }
    expect(makeError('ERR_SENET_SHAPE', ['one', `two ${EVIL}`]).message.split('\n')).to.have.length(2);
  });

  it('no message is endless, nor has a word that is', async () => {
    const huge = 'h'.repeat(1_000_000);
    expect(makeError('ERR_SENET_FILE', `${huge} is ${huge}`).message.length).to.be.below(1500);
    expect(makeError('ERR_SENET_FILE', 'a word '.repeat(100_000)).message.length).to.be.below(5000);
    expect(makeError('ERR_SENET_FILE', Array<string>(10_000).fill(huge)).message.length).to.be.below(200_000);
    for (const run of [
      () => createModel(huge as never),
      () => createModel('se_resnet50', { [huge]: 1 }),
      () => void ops.call(huge),
      () => load(huge),
      () => loadStateDictFromUrl(`http://127.0.0.1:1/${huge}`),
      () => tensor([1], { dtype: huge as never }),
    ])
      expect((await messageOf(run)).length).to.be.below(3000);
  });

  it('nothing that a caller names reaches a message raw', async () => {
    for (const run of [
      () => createModel(EVIL as never),
      () => load(`/nowhere/${EVIL}`),
      () => loadStateDictFromUrl(EVIL),
      () => tensor(EVIL as never),
      () => void ops.call(EVIL),
    ])
      expect(await messageOf(run)).not.to.match(RAW);
  });

  it('the command line calls options by its own names', () => {
    const options = [
      { name: 'dropLast', flag: '--drop-last' },
      { name: 'labels', flag: '--labels' },
      { name: 'data', flag: '--data' },
    ];
    const said = (text: string): string => inOptionNames(text, options);
    expect(said('a batch of one image; dropLast leaves it out')).to.equal(
      'a batch of one image; --drop-last leaves it out',
    );
    expect(said('ImageClassifier.load: labels: a.txt: expected 10')).to.equal('--labels: a.txt: expected 10');
    expect(said('the labels: none; the data: none')).to.equal('the labels: none; the data: none');
    expect(said("a file 'dropLast' and x.dropLast")).to.equal("a file 'dropLast' and x.dropLast");
  });
});
