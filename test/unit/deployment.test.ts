/**
 * The manifests of `deploy/` against the schemas of Kubernetes and KEDA, and against the command line: every argument
 * is an option that its command has.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import { Command } from 'commander';
import { parseAllDocuments } from 'yaml';

import { addClassify } from '../../lib/cli/classify';
import { addWorker } from '../../lib/cli/worker';

const FOLDER = path.join(__dirname, '..', '..', 'deploy');

interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly [name: string]: unknown;
}

interface Manifest {
  readonly kind: string;
  readonly apiVersion: string;
  readonly metadata: { readonly name: string };
  readonly spec: Record<string, unknown>;
}

/** What KServe's predictor has beside the fields of a pod (serving.kserve.io/v1beta1, ComponentExtensionSpec). */
const PREDICTOR = [
  'minReplicas',
  'maxReplicas',
  'scaleMetric',
  'scaleTarget',
  'timeout',
  'containerConcurrency',
];

type Kind = new (manifest: never) => { validate(): void };

/** By apiVersion and kind. They are ES modules alone. */
async function loadKinds(): Promise<Record<string, Kind>> {
  const apps = await import('kubernetes-models/apps/v1');
  const batch = await import('kubernetes-models/batch/v1');
  const core = await import('kubernetes-models/v1');
  const policy = await import('kubernetes-models/policy/v1');
  const keda = await import('@kubernetes-models/keda/keda.sh/v1alpha1');
  return {
    'apps/v1 Deployment': apps.Deployment,
    'batch/v1 Job': batch.Job,
    'v1 Service': core.Service,
    'v1 PersistentVolumeClaim': core.PersistentVolumeClaim,
    'v1 Pod': core.Pod,
    'policy/v1 PodDisruptionBudget': policy.PodDisruptionBudget,
    'keda.sh/v1alpha1 ScaledObject': keda.ScaledObject,
  };
}

function manifestsOf(file: string): Manifest[] {
  return parseAllDocuments(readFileSync(path.join(FOLDER, file), 'utf8')).map((document) => {
    expect(document.errors).to.deep.equal([]);
    return document.toJS() as Manifest;
  });
}

function containersOf({ spec }: Manifest): readonly Container[] {
  const { template, predictor } = spec as Record<
    'template' | 'predictor',
    Record<string, unknown> | undefined
  >;
  const pod = (predictor ?? template?.spec ?? {}) as { containers?: readonly Container[] };
  return pod.containers ?? [];
}

describe('deploy/', () => {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.yaml'));
  let kinds: Record<string, Kind>;

  before(async function () {
    this.timeout(120_000);
    kinds = await loadKinds();
  });

  function validate(manifest: Manifest): void {
    const kind = `${manifest.apiVersion} ${manifest.kind}`;
    if (kind === 'serving.kserve.io/v1beta1 InferenceService') {
      const { predictor, ...others } = manifest.spec as { predictor: Record<string, unknown> };
      expect(others).to.deep.equal({});
      const pod = Object.entries(predictor).filter(([name]) => !PREDICTOR.includes(name));
      expect(predictor.scaleMetric).to.be.oneOf(['cpu', 'memory', 'concurrency', 'rps']);
      validate({ ...manifest, apiVersion: 'v1', kind: 'Pod', spec: Object.fromEntries(pod) });
      return;
    }
    expect(Object.keys(kinds)).to.include(kind);
    new (kinds[kind] as Kind)(manifest as never).validate();
  }

  it('has a server, workers, shards and an InferenceService', () =>
    expect(files).to.have.members(['inference-service.yaml', 'server.yaml', 'shards.yaml', 'worker.yaml']));

  for (const file of files) {
    it(`${file} is what the schemas want`, () => {
      for (const manifest of manifestsOf(file)) validate(manifest);
    });

    it(`${file}: its containers have limits, and what serves has probes that the server answers`, () => {
      for (const container of manifestsOf(file).flatMap(containersOf)) {
        expect(container).to.have.nested.property('resources.limits.memory');
        const [command] = container.args;
        if (command === 'classify') continue;
        expect(container).to.have.nested.property('readinessProbe.httpGet.path', '/v2/health/ready');
        expect(container).to.have.nested.property('livenessProbe.httpGet.path', '/v2/health/live');
      }
    });
  }

  it('what scales a thing names it, and the selectors of a thing find its pods', () => {
    for (const file of files) {
      const manifests = manifestsOf(file);
      const names = manifests
        .filter(({ kind }) => kind === 'Deployment')
        .map(({ metadata }) => metadata.name);
      for (const { kind, spec } of manifests) {
        if (kind === 'ScaledObject') expect(names).to.include((spec.scaleTargetRef as { name: string }).name);
        if (kind === 'Service') expect(names).to.include((spec.selector as { app: string }).app);
        if (kind !== 'Deployment') continue;
        const { selector, template } = spec as never as {
          selector: { matchLabels: object };
          template: { metadata: { labels: object } };
        };
        expect(template.metadata.labels).to.include(selector.matchLabels);
      }
    }
  });

  it('the schemas refuse what is wrong', () => {
    const [deployment, , , scaled] = manifestsOf('server.yaml') as [Manifest, Manifest, Manifest, Manifest];
    const wrong = [
      { ...deployment, spec: { ...deployment.spec, replicas: 'two' } },
      { ...deployment, spec: { selector: deployment.spec.selector } },
      { ...scaled, spec: { ...scaled.spec, triggers: [{ type: 'redis' }] } },
    ];
    for (const manifest of wrong) expect(() => validate(manifest)).to.throw();
  });

  it('every argument is an option of its command', () => {
    const program = new Command();
    const signal = (): AbortSignal => new AbortController().signal;
    addClassify(program, signal);
    addWorker(program, signal);
    let checked = 0;
    for (const { args } of files.flatMap(manifestsOf).flatMap(containersOf)) {
      const command = program.commands.find((one) => one.name() === args[0]);
      if (command === undefined) {
        expect(args[0]).to.equal('serve'); // whose options are its own tests' affair
        continue;
      }
      const flags = args.filter((arg) => arg.startsWith('--')).map((arg) => arg.split('=')[0]);
      for (const flag of flags) expect(command.options.map(({ long }) => long)).to.include(flag);
      checked += flags.length;
    }
    expect(checked).to.be.above(6);
  });

  it('the image is built for the Debian that it runs on, and runs as nobody', () => {
    const text = readFileSync(path.join(FOLDER, 'Dockerfile'), 'utf8');
    expect(text).to.match(/^FROM node:20-bookworm AS build$/m);
    expect(text).to.match(/^FROM gcr\.io\/distroless\/nodejs20-debian12:nonroot$/m);
    expect(text).to.include('setup --into-package');
  });
});
