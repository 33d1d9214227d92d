#!/usr/bin/env node
'use strict';
// `node scripts/bench/cuda-runner [FOLDER]`: builds the runner (runner.cpp) with g++ alone and runs it. FOLDER is where
// libcudart, libnvrtc and libcudnn lie, or a LibTorch for CUDA; without it the loader finds them. Exits with 2 where there is
// no driver or device, 1 if a check fails.
const { spawnSync } = require('node:child_process');
const { mkdirSync, readdirSync } = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..', '..');
const CUDA = path.join(ROOT, 'native', 'inference', 'cuda');
const BUILD = path.join(ROOT, 'build', 'cuda-runner');
const PROGRAM = path.join(BUILD, 'cuda-runner');
/** What packs weights and gives memory knows LibTorch. */
const WITH_LIBTORCH = ['lower.cpp', 'program.cpp'];

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw error;
  return status ?? 1;
}

function build() {
  mkdirSync(path.join(BUILD, 'inference', 'cuda'), { recursive: true });
  const text = path.join(BUILD, 'inference', 'cuda', 'kernels_text.h');
  const parts = { OUT: text, KERNELS: 'kernels.cu', TASKS: 'tasks.h', LAUNCHES: 'kernels.cpp' };
  const definitions = Object.entries(parts).map(([name, file]) => `-D${name}=${path.resolve(CUDA, file)}`);
  if (run('cmake', [...definitions, '-P', path.join(CUDA, 'embed.cmake')]) !== 0) return false;
  const sources = readdirSync(CUDA)
    .filter((name) => name.endsWith('.cpp') && !WITH_LIBTORCH.includes(name))
    .map((name) => path.join(CUDA, name));
  return (
    run(process.env.CXX ?? 'g++', [
      ...['-std=c++20', '-O2', '-Wall', '-Wextra', '-s', `-I${path.join(ROOT, 'native')}`, `-I${BUILD}`],
      ...[
        path.join(__dirname, 'runner.cpp'),
        path.join(ROOT, 'native', 'inference', 'arena.cpp'),
        path.join(ROOT, 'native', 'runtime', 'cuda_driver.cpp'),
        ...sources,
      ],
      ...['-o', PROGRAM, '-ldl', '-pthread'],
    ]) === 0
  );
}

if (require.main === module) {
  process.exitCode = build() ? run(PROGRAM, process.argv.slice(2)) : 1;
}

module.exports = { build, PROGRAM };
