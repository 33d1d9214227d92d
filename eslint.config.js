'use strict';
const tseslint = require('typescript-eslint');

// Every class that a global names, those of later Nodes too.
const BUILT_INS = Object.getOwnPropertyNames(globalThis).filter((name) => /^[A-Z]/.test(name));

// What jsdom has not, or not as Node has it.
const NOT_EVERYWHERE = [
  ['TextDecoder', 'node:util'],
  ['TextEncoder', 'node:util'],
  ['performance', 'node:perf_hooks'],
  ['setImmediate', 'node:timers'],
  ['clearImmediate', 'node:timers'],
  ['setInterval', 'node:timers'],
  ['setTimeout', 'node:timers'],
  ['fetch', 'undici'],
].map(([name, from]) => ({
  name,
  message: `Under jsdom it is absent or another: import it from '${from}'.`,
}));

module.exports = tseslint.config(
  {
    ignores: [
      'dist',
      'build',
      'release',
      'api',
      'node_modules',
      'scripts',
      'test/lifetime/scenario.js',
      'test/support/interrupt.js',
      'test/fuzz/images-scenario.js',
      'test/integration/distributed-scenario.js',
      'test/packages',
      'test/runtimes',
      'eslint.config.js',
      'test/fixtures',
    ],
  },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        project: ['./tsconfig.check.json', './lib/serve/page/tsconfig.json'],
        tsconfigRootDir: __dirname,
      },
    },
    rules: {
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
    },
  },
  {
    // Values from outside are checked even where their declared type says they need not be.
    files: ['lib/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unnecessary-condition': 'off',
      'no-restricted-globals': ['error', ...NOT_EVERYWHERE],
      'no-restricted-syntax': [
        'error',
        {
          selector: `BinaryExpression[operator='instanceof'][right.name=/^(${BUILT_INS.join('|')})$/]`,
          message: 'False of a value of another realm (Jest, node:vm): use lib/brands.ts.',
        },
        {
          selector: 'ImportExpression',
          message: 'Refused in realms without a loader (Jest, node:vm): use require, the output is CommonJS.',
        },
      ],
    },
  },
  {
    // Runs in browsers.
    files: ['lib/serve/page/*.ts'],
    rules: { 'no-restricted-globals': 'off', 'no-restricted-syntax': 'off' },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unused-expressions': 'off',
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/no-require-imports': 'off',
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
    },
  },
  {
    // Statements about types, void among them; never run.
    files: ['test/types/**/*.ts'],
    rules: {
      '@typescript-eslint/no-invalid-void-type': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/ban-ts-comment': ['error', { minimumDescriptionLength: 4 }],
    },
  },
);
