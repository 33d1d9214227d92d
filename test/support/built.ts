/**
 * What users run: dist/, compiled anew where lib/ is newer. Child processes of the tests load it, since compiling lib/ on
 * the fly takes each of them a second or two of a processor.
 */
import path from 'node:path';

const ROOT = path.join(__dirname, '..', '..');

(require('../../scripts/bootstrap') as { compile: () => void }).compile();

/** For `require` in a child process. */
export const DIST = path.join(ROOT, 'dist');
/** The file that `senet-torch` is. */
export const CLI = path.join(DIST, 'cli', 'main.js');
