'use strict';
/**
 * Preloaded into a process (`--require`): sends it the signal INTERRUPT_BY when it has written to standard
 * error what matches INTERRUPT_AT. A signal from outside may come after the process has ended.
 */
const pattern = new RegExp(process.env.INTERRUPT_AT ?? '', 'm');
const write = process.stderr.write.bind(process.stderr);
let sent = false;

process.stderr.write = (...args) => {
  const result = write(...args);
  if (!sent && pattern.test(String(args[0]))) {
    sent = true;
    process.kill(process.pid, process.env.INTERRUPT_BY);
  }
  return result;
};
