'use strict';
// From the times that inference.js measured to ratios, shares of the machine's limit and floors, and their printed forms.
// Starts nothing and measures nothing.
const os = require('node:os');
const { median } = require('./peers');

const DTYPES = ['float32', 'bfloat16', 'int8'];
const COMPILED = DTYPES.map((dtype) => `compiled-${dtype}`);
// Of engines that differ in layout only, the faster one counts.
const BETTER = { pytorch: ['pytorch', 'pytorch-channels-last'], eager: ['eager', 'eager-channels-last'] };

// What this library wants to reach on two AVX-512 cores: how many times faster than each peer's float32, and what share
// of the processor's multiply-adds (docs/benchmarks.md). Where AMX computes a type, AMX_FLOORS are those of it.
const FLOORS = [
  floor('se_resnet50', 1, 'compiled-float32', { onnxruntime: 1.15, pytorch: 1.5, inductor: 1.25 }),
  floor('se_resnet50', 8, 'compiled-float32', { onnxruntime: 1.2, pytorch: 1.4, inductor: 1.15 }, 0.85),
  floor('se_resnet50', 1, 'compiled-bfloat16', { onnxruntime: 1.9, pytorch: 2.6, inductor: 2 }),
  floor('se_resnet50', 8, 'compiled-bfloat16', { onnxruntime: 2.2, pytorch: 2.7, inductor: 2 }, 0.75),
  floor('se_resnet20', 1, 'compiled-float32', { onnxruntime: 1.1, pytorch: 4, inductor: 2 }),
  floor('se_resnet20', 32, 'compiled-float32', { onnxruntime: 1.3, pytorch: 3, inductor: 2 }),
  floor('se_inception_v3', 1, 'compiled-float32', { onnxruntime: 1.1, pytorch: 1.5, inductor: 1.15 }),
  floor('se_inception_v3', 8, 'compiled-float32', { onnxruntime: 1, pytorch: 1.4, inductor: 1.15 }),
  floor('se_inception_v3', 8, 'compiled-bfloat16', { onnxruntime: 1.8, pytorch: 2.5, inductor: 2 }),
  floor('se_resnet50', 8, 'eager', { pytorch: 1.15 }),
  // By VNNI.
  floor('se_resnet50', 1, 'compiled-int8', { 'onnxruntime-int8': 1.3, 'compiled-float32': 2.2 }),
  floor('se_resnet50', 8, 'compiled-int8', { 'onnxruntime-int8': 1.3, 'compiled-float32': 2.5 }),
  floor('se_inception_v3', 1, 'compiled-int8', { 'onnxruntime-int8': 1.2, 'compiled-float32': 2 }),
  floor('se_inception_v3', 8, 'compiled-int8', { 'onnxruntime-int8': 1.2, 'compiled-float32': 2.2 }),
];
// On two cores with AMX, of which nothing was measured yet.
const AMX_FLOORS = [
  ...[
    ['se_resnet50', 1, 2, 4],
    ['se_resnet50', 8, 2, 8, 0.35],
    ['se_inception_v3', 1, 2, 4],
    ['se_inception_v3', 8, 2, 8, 0.35],
    ['se_resnet20', 1, 4, 1.5],
    ['se_resnet20', 32, 2, 3],
  ].map(([model, batch, inductor, onnxruntime, share]) =>
    floor(model, batch, 'compiled-bfloat16', { onnxruntime, 'inductor-bfloat16': inductor }, share),
  ),
  ...['se_resnet50', 'se_inception_v3'].flatMap((model) =>
    [
      [1, 2.5],
      [8, 4],
    ].map(([batch, onnxruntime]) =>
      floor(model, batch, 'compiled-int8', { 'onnxruntime-int8': onnxruntime, 'compiled-bfloat16': 1.3 }),
    ),
  ),
  floor('se_resnet50', 1, 'compiled-int8-vnni', { 'onnxruntime-int8': 1.3, 'compiled-float32': 2.2 }),
  floor('se_resnet50', 8, 'compiled-int8-vnni', { 'onnxruntime-int8': 1.3, 'compiled-float32': 2.5 }),
  floor('se_inception_v3', 1, 'compiled-int8-vnni', { 'onnxruntime-int8': 1.2, 'compiled-float32': 2 }),
  floor('se_inception_v3', 8, 'compiled-int8-vnni', { 'onnxruntime-int8': 1.2, 'compiled-float32': 2.2 }),
];
// More of the processors than this busy between the measurements: other programs disturb them.
const IDLE = 0.1;
const PEERS = {
  onnxruntime: 'onnxruntime-node',
  pytorch: 'PyTorch eager, better layout',
  inductor: 'torch.compile, freezing',
  'inductor-bfloat16': 'torch.compile, freezing, bfloat16',
  'onnxruntime-int8': 'onnxruntime-node int8',
  'compiled-float32': 'our float32',
  'compiled-bfloat16': 'our bfloat16',
};

function floor(model, batch, engine, times, peakShare) {
  return { model, batch, engine, times, peakShare };
}

function statistics(numbers) {
  return { median: median(numbers), least: Math.min(...numbers), most: Math.max(...numbers) };
}

/** How many times faster `ours` is: of the medians of all rounds, and the range of the rounds. */
function ratioOf(theirs, ours) {
  if (theirs === undefined || ours === undefined) return null;
  const rounds = Math.min(theirs.rounds.length, ours.rounds.length);
  const each = Array.from({ length: rounds }, (_, round) => theirs.rounds[round] / ours.rounds[round]);
  return {
    ...statistics(each),
    median: theirs.milliseconds.median / ours.milliseconds.median,
  };
}

/** Everything as data, which --json prints. */
function summarize({ options, jobs, results, engines, peaks, peakAbsent, busy, versions, absent, failures }) {
  const peakOf = (dtype, unit = (all) => all) => {
    const numbers = peaks.map((all) => unit(all)[dtype] ?? null);
    return numbers.length === 0 || numbers[0] === null ? null : statistics(numbers);
  };
  const peak = {
    ...Object.fromEntries(DTYPES.map((dtype) => [dtype, peakOf(dtype)])),
    amx: Object.fromEntries(DTYPES.map((dtype) => [dtype, peakOf(dtype, ({ amx }) => amx)])),
  };
  const rows = [];
  for (const job of jobs) {
    job.batches.forEach(({ size }, index) => {
      const gigaflop = job.multiplyAdds === null ? null : (2 * job.multiplyAdds * size) / 1e9;
      for (const engine of options.engines) {
        const measured = results[job.model][engine].map((batches) => batches[index]);
        if (measured.length === 0) continue;
        const { title, dtype, slack } = engines[engine];
        const { instructions } = results[job.model][engine];
        const rounds = measured.map(({ milliseconds }) => milliseconds);
        const milliseconds = statistics(rounds);
        // Of an engine that does not say what it runs on, the best that there is.
        const limit = (instructions === null || isAmx(instructions) ? peak.amx[dtype] : null) ?? peak[dtype];
        rows.push({
          ...{ model: job.model, side: job.side, batch: size, gigaflop, engine, title, dtype, instructions },
          ...{ milliseconds, rounds },
          pageFaults: median(measured.map(({ pageFaults }) => pageFaults)),
          peakShare:
            limit === null || gigaflop === null ? null : (1000 * gigaflop) / milliseconds.median / limit.most,
          distance: Math.max(...measured.map(({ distance }) => distance)),
          slack: slack ?? null,
        });
      }
    });
  }
  for (const row of rows) {
    row.fasterThanIt = Object.fromEntries(
      COMPILED.map((engine) => [engine, ratioOf(row, find(rows, row.model, row.batch, engine))]),
    );
  }
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: {
      cpu: os.cpus()[0]?.model ?? process.arch,
      processors: os.availableParallelism(),
      instructions: peaks[0]?.instructions ?? null,
    },
    ...{ threads: options.threads, rounds: options.rounds, seconds: options.seconds, versions },
    ...{ gigaflopsPeak: peak, peakAbsent: peakAbsent ?? null, busyShare: Math.max(...busy) },
    amxAbsent: options.amx ? whyNoAmx(peaks, rows) : null,
    ...{ rows, floors: judge(rows), absent: byReason(absent, engines), failures },
  };
}

/** Whether our kernels, or a peer's, of this name are a matrix unit's. */
function isAmx(instructions) {
  return instructions !== null && instructions.startsWith('amx');
}

/** Why nothing here is AMX's; null where something is. */
function whyNoAmx(peaks, rows) {
  if (rows.some(({ instructions }) => isAmx(instructions))) return null;
  const said = peaks.length === 0 ? undefined : peaks[0].amx;
  return typeof said === 'string'
    ? said
    : 'our kernels for it did not run; `npx senet-torch doctor` says why';
}

/** For each reason the engines that are absent for it. */
function byReason(absent, engines) {
  const reasons = new Map();
  for (const [engine, reason] of Object.entries(absent)) {
    reasons.set(reason, [...(reasons.get(reason) ?? []), engines[engine].title]);
  }
  return [...reasons].map(([reason, titles]) => ({ titles, reason }));
}

/** The row of an engine, or of the fastest of those that `engine` stands for. */
function find(rows, model, batch, engine, alternatives = [engine]) {
  return rows
    .filter((row) => row.model === model && row.batch === batch && alternatives.includes(row.engine))
    .sort((left, right) => left.milliseconds.median - right.milliseconds.median)[0];
}

function judge(rows) {
  const judged = [...FLOORS.map((entry) => ({ ...entry, isOfAmx: false })), ...AMX_FLOORS];
  return judged.flatMap(({ model, batch, engine, times, peakShare, isOfAmx = true }) => {
    const ours = find(rows, model, batch, engine, BETTER[engine]);
    const hasAmx = rows.some(({ instructions }) => isAmx(instructions));
    if (ours === undefined || (isOfAmx ? !hasAmx : isAmx(ours.instructions))) return [];
    const against = {};
    for (const [peer, least] of Object.entries(times)) {
      const ratio = ratioOf(find(rows, model, batch, peer, BETTER[peer]), ours);
      if (ratio !== null) against[peer] = { ...ratio, floor: least, reached: ratio.median >= least };
    }
    const share =
      peakShare === undefined || ours.peakShare === null
        ? null
        : { median: ours.peakShare, floor: peakShare, reached: ours.peakShare >= peakShare };
    if (share === null && Object.keys(against).length === 0) return [];
    return [{ model, batch, engine, title: ours.title, against, peakShare: share }];
  });
}

/** 3.142, 31.4, 314: three digits. */
function digits(number) {
  return number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

function withRange({ median: middle, least, most }, form) {
  if (least === most) return form(middle); // a single round
  return `${form(middle)} (${form(least)} to ${form(most)})`;
}

const percent = (share) => (share === null ? '-' : `${(100 * share).toFixed(0)} %`);
const times = (ratio) => (ratio === null ? '-' : withRange(ratio, (number) => number.toFixed(2)));

function heading(summary) {
  const { date, machine, threads, rounds, versions, gigaflopsPeak, peakAbsent, amxAbsent, busyShare } =
    summary;
  const { senetTorch, pytorch, onnxruntime, node } = versions;
  const named = [
    `senet-torch ${senetTorch.package} on LibTorch ${senetTorch.libtorch}`,
    onnxruntime && `onnxruntime-node ${onnxruntime}`,
    pytorch && `PyTorch ${pytorch}`,
    `Node ${node}`,
  ];
  const peak = [
    ...DTYPES.map((dtype) => [dtype, gigaflopsPeak[dtype], '']),
    ...DTYPES.map((dtype) => [dtype, gigaflopsPeak.amx[dtype], ' by AMX']),
  ]
    .filter(([, reached]) => reached !== null)
    .map(
      ([dtype, reached, unit]) =>
        `${withRange(reached, digits)} ${dtype === 'int8' ? 'GOP/s' : 'GFLOP/s'} in ${dtype}${unit}`,
    );
  const instructions = machine.instructions === null ? '' : ` with ${machine.instructions}`;
  return [
    `${date}, ${machine.cpu}${instructions}, ${threads} of ${machine.processors} processors, ${rounds} round${rounds === 1 ? '' : 's'}`,
    named.filter(Boolean).join(', '),
    peak.length > 0
      ? `Multiply-add peak of ${threads} threads: ${peak.join(', ')}`
      : `Multiply-add peak not measured: ${peakAbsent}`,
    ...(amxAbsent === null ? [] : [`NOTHING HERE IS AMX'S, neither times nor peaks: ${amxAbsent}`]),
    ...(busyShare > IDLE
      ? [`NOT TO BE TRUSTED: other programs kept ${percent(busyShare)} of the processors busy`]
      : []),
  ];
}

/** Columns as wide as their cells; the first one flush left, the others flush right. */
function align(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((cells) => cells[column].length)));
  return lines.map((cells) =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])))
      .join('   ')
      .trimEnd(),
  );
}

function groups(rows) {
  const all = new Map();
  for (const row of rows) {
    const key = `${row.model} ${row.batch}`;
    all.set(key, [...(all.get(key) ?? []), row]);
  }
  return [...all.values()];
}

function name({ model, batch }) {
  return `${model}, batch ${batch}`;
}

/** What was reached, for each peer and of the peak; `form` joins it, its floor, and whether it is reached. */
function floorCells({ against, peakShare }, form) {
  return [
    ...Object.keys(PEERS).map((peer) => {
      const found = against[peer];
      return found === undefined ? '-' : form(times(found), found.floor.toFixed(2), found.reached);
    }),
    peakShare === null ? '-' : form(percent(peakShare.median), percent(peakShare.floor), peakShare.reached),
  ];
}

/** For a terminal. */
function toTable(summary) {
  const { rows, floors, absent, failures } = summary;
  const columns = [
    '',
    'on',
    'ms (rounds)',
    'of peak',
    'page faults',
    'distance',
    'against float32',
    'against bfloat16',
    'against int8',
  ];
  const lines = [columns];
  for (const group of groups(rows)) {
    const [{ side, gigaflop }] = group;
    const work = gigaflop === null ? '' : `, ${digits(gigaflop)} GFLOP`;
    lines.push([`${name(group[0])} (${side} x ${side}${work})`, ...columns.slice(1).map(() => '')]);
    for (const row of group) {
      lines.push([
        `  ${row.title}`,
        row.instructions ?? '-',
        withRange(row.milliseconds, digits),
        percent(row.peakShare),
        row.pageFaults.toFixed(row.pageFaults < 10 ? 1 : 0),
        row.distance === 0 ? '0' : row.distance.toExponential(0),
        ...COMPILED.map((engine) => (engine === row.engine ? '' : times(row.fasterThanIt[engine]))),
      ]);
    }
  }
  const text = [
    ...heading(summary),
    '',
    ...align(lines),
    '',
    'on: the instruction set, of engines that name it. ms: medians, with the range of the rounds. of peak: share of the best',
    'multiply-add peak of that instruction set in that type (of an engine that names none: of the machine). page faults: in',
    'each forward. distance: of the output from our eager output, relative L2. against: the time over that of our compiled',
    'model in that type (more than 1: ours is faster), with the range of the rounds.',
  ];
  if (floors.length > 0) {
    const floorLines = [
      ['', ...Object.values(PEERS), 'of peak'],
      ...floors.map((entry) => [
        `${name(entry)}: ${entry.engine}`,
        ...floorCells(entry, (printed, least, reached) => `${printed} ${reached ? '>=' : ' <'} ${least}`),
      ]),
    ];
    text.push(
      '',
      'Floors, meant for two AVX-512 cores, or two with AMX: how many times faster than that engine',
      ...align(floorLines),
    );
  }
  for (const { titles, reason } of absent) text.push('', `Absent: ${titles.join('; ')}.`, `  ${reason}`);
  for (const failure of failures) text.push('', `FAILED: ${failure}`);
  return text.join('\n');
}

function markdownTable(lines) {
  const [head, ...body] = lines.map((cells) => `| ${cells.join(' | ')} |`);
  const rule = `|${lines[0].map((_, column) => (column === 0 ? '---|' : '---:|')).join('')}`;
  return [head, rule, ...body];
}

/** For docs/benchmarks.md: milliseconds and shares, then ratios with the floors. */
function toMarkdown(summary) {
  const { rows, floors, absent, failures } = summary;
  const titles = new Map(rows.map(({ engine, title }) => [engine, title]));
  const milliseconds = [
    ['ms a batch (share of the peak)', ...titles.values()],
    ...groups(rows).map((group) => [
      name(group[0]),
      ...[...titles.keys()].map((engine) => {
        const row = group.find((candidate) => candidate.engine === engine);
        return row === undefined
          ? '-'
          : `${digits(row.milliseconds.median)}${row.peakShare === null ? '' : ` (${percent(row.peakShare)})`}`;
      }),
    ]),
  ];
  const ratios = [
    ['times as fast as', ...Object.values(PEERS), 'share of the peak'],
    ...floors.map((entry) => [
      `${name(entry)}: ${entry.title.replace('senet-torch ', '')}`,
      ...floorCells(entry, (printed, least, reached) => (reached ? printed : `${printed}, floor ${least}`)),
    ]),
  ];
  const text = [
    `Medians: ${heading(summary).join('. ')}.`,
    '',
    ...markdownTable(milliseconds),
    '',
    ...markdownTable(ratios),
  ];
  if (absent.length > 0) text.push('', `Absent: ${absent.flatMap(({ titles }) => titles).join('; ')}.`);
  for (const failure of failures) text.push('', `FAILED: ${failure}`);
  return text.join('\n');
}

module.exports = { summarize, toMarkdown, toTable };
