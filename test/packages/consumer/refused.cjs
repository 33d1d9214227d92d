'use strict';
// Prints the error that `require` ends with. SENET_TEST_AS changes what the process takes itself for.
const [platform, arch] = (process.env.SENET_TEST_AS ?? '').split('-');
if (platform === 'musl') process.report.getReport = () => ({ header: {} });
else if (platform) {
  Object.defineProperty(process, 'platform', { value: platform });
  Object.defineProperty(process, 'arch', { value: arch });
}
try {
  require('senet-torch');
  console.log(JSON.stringify({ code: null, message: 'it loads' }));
} catch ({ code, message }) {
  console.log(JSON.stringify({ code, message }));
}
