'use strict';
// Mocha's spec reporter with a last line that machines read: "N passed, N failed, N skipped".
const { reporters } = require('mocha');

module.exports = class SummaryReporter extends reporters.Spec {
  epilogue() {
    super.epilogue();
    const { passes, failures, pending } = this.stats;
    console.log(`${passes} passed, ${failures} failed, ${pending} skipped`);
  }
};
