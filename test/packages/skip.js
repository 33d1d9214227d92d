'use strict';
/** Thrown by a case that cannot be tried here; the message says why. */
class Skip extends Error {}

module.exports = { Skip };
