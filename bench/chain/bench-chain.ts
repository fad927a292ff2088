import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { initSite, introduceSites } from '../../cli/demo/introduce-sites.ts';
import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient } from '../../common/control/control-client.ts';
import { readerStatusSchema } from '../../common/control/reader-answer.ts';
import { stageStatusSchema } from '../../common/control/stage-answer.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import { decodeFrame } from '../../common/wire/frame-codec.ts';
import { eventually } from '../../test/support/eventually.ts';
import { freePort } from '../../test/support/external-broker.ts';
import { opensslIdentity } from '../../test/support/openssl.ts';
import { usageOf, type ProcessUsage } from '../machine.ts';
import { monotonicMs } from '../running-instance.ts';
import { CountingProxy } from './counting-proxy.ts';

/** What protects the data on its way. */
export interface Protection {
  /** Mutual TLS 1.3 between sites, each with an authority of its own. */
  readonly tls: boolean;
  /** Each frame signed with the key of its epoch. */
  readonly signs: boolean;
  /** Data sealed for the primary site, and opened there. */
  readonly seals: boolean;
}

export const tlsOnly: Protection = { tls: true, signs: false, seals: false };

export interface ChainOptions {
  /** From the source to the primary site: one relay fewer than hops. */
  readonly hopCount: number;
  readonly protection: Protection;
  /** Bytes of the first hop are counted, at the price of a proxy. */
  readonly countsBytes?: boolean;
  /** The source is bench/chain/stream-source.ts with so many streams, in place of a collector. */
  readonly streamCount?: number;
  /** Where each process leaves a CPU profile. */
  readonly profileDirectory?: string | undefined;
}

const sourceName = 'source';
const primaryName = 'primary';
const startTimeoutMs = 60_000;
const stopTimeoutMs = 20_000;
const logCharactersMax = 20_000;

/**
 * A source, relays and a primary site, each a process and, with TLS, a site of its own, in one row:
 *
 *   source --relation relay-1--> relay-1 --relation relay-2--> ... --relation primary--> primary
 *
 * Each dials the broker of the one before it.
 */
export class BenchChain implements AsyncDisposable {
  readonly nodes: readonly string[];
  readonly #directory: string;
  readonly #options: ChainOptions;
  readonly #children = new Map<string, ChildProcess>();
  #proxy: CountingProxy | undefined;
  #certificate: string | undefined;
  #log = '';

  constructor(directory: string, options: ChainOptions) {
    this.#directory = directory;
    this.#options = options;
    const relays = Array.from({ length: options.hopCount - 1 }, (_, index) => `relay-${index + 1}`);
    this.nodes = [sourceName, ...relays, primaryName];
  }

  /** Resolves when every hop is subscribed. */
  async start(): Promise<void> {
    mkdirSync(this.#directory, { recursive: true });
    if (this.#options.protection.seals) {
      const keys = join(this.#directory, 'keys');
      mkdirSync(keys);
      this.#certificate = opensslIdentity(keys, 'reader', 'P-256').certificatePem;
    }
    await this.#configure();
    for (const node of this.nodes) this.run(node);
    try {
      await eventually(
        async () => (await this.#client(primaryName).get('/v1/status', readerStatusSchema)).isLive,
        { timeoutMs: startTimeoutMs, pollMs: 50 },
      );
      await Promise.all(this.relays.map((relay) => this.answers(relay)));
    } catch (cause) {
      throw new Error(`the chain did not start: ${this.#log}`, { cause });
    }
  }

  get relays(): readonly string[] {
    return this.nodes.slice(1, -1);
  }

  /** What went through the first hop; only with `countsBytes`. */
  get firstHopBytes(): number {
    const { toDialled = 0, toDialler = 0 } = this.#proxy?.bytes ?? {};
    return toDialled + toDialler;
  }

  /** The descriptor of a VM that is to be registered, with the key that its data is sealed for. */
  async addVm(id: string, channel: string): Promise<void> {
    const descriptor = {
      apiVersion: 'isobar/v1',
      kind: 'VirtualMachine',
      id,
      guest: { channel },
      monitoring: { specifiers: [{ id: 'kpi', dataPoints: 'kpi/**' }] },
      ...(this.#certificate === undefined ? {} : { primarySitePublicKey: this.#certificate }),
    };
    const source = this.#client(sourceName);
    await eventually(() => source.call('POST', collectorPaths.vms, descriptor, vmAnswerSchema), {
      timeoutMs: startTimeoutMs,
      pollMs: 50,
    });
  }

  run(node: string): void {
    const { profileDirectory } = this.#options;
    const isStreamSource = node === sourceName && this.#options.streamCount !== undefined;
    const child = spawn(
      process.execPath,
      [
        ...(profileDirectory === undefined
          ? []
          : ['--cpu-prof', `--cpu-prof-dir=${join(profileDirectory, node)}`]),
        compiledEntry(this.#entry(node)),
        '--config',
        this.#configPath(node),
      ],
      { stdio: ['ignore', 'ignore', 'pipe', ...(isStreamSource ? (['ipc'] as const) : [])] },
    );
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-logCharactersMax);
    });
    this.#children.set(node, child);
  }

  /** kill -9; `run` starts it again. */
  async kill(node: string): Promise<void> {
    await this.#end(node, 'SIGKILL');
  }

  /** Resolves with the moment at which a node answers on its control socket. */
  async answers(node: string): Promise<number> {
    await eventually(() => this.#client(node).get('/v1/status', stageStatusSchema), {
      timeoutMs: startTimeoutMs,
      pollMs: 10,
    });
    return monotonicMs();
  }

  /** A source of streams: `save`, `stop`, and what it answers. */
  get source(): ChildProcess {
    const child = this.#children.get(sourceName);
    if (child === undefined) throw new Error('the chain has no source');
    return child;
  }

  /** CPU time and memory of each node now. */
  usage(): ReadonlyMap<string, ProcessUsage> {
    return new Map([...this.#children].map(([node, { pid = 0 }]) => [node, usageOf(pid)] as const));
  }

  /** Measurements and frames that the primary site has stored since it started. */
  async stored(): Promise<{ readonly measurements: number; readonly frames: number }> {
    const { stages } = await this.#client(primaryName).get('/v1/status', readerStatusSchema);
    return {
      measurements: stages['store']?.forwarded ?? 0,
      frames: stages['consumer']?.forwarded ?? 0,
    };
  }

  /**
   * Hands over each reading that matches, from the beginning of this chain, as the primary site's API streams it. `take`
   * gets the moment at which its line came.
   */
  watch(pattern: string, take: (reading: WatchedValue, atMs: number) => void): AsyncDisposable {
    const abort = new AbortController();
    const path = `/v1/watch?sinceUs=0&pattern=${encodeURIComponent(pattern)}`;
    const lines = this.#client(primaryName).stream(path, watchedValueSchema, abort.signal);
    const reading = (async () => {
      for await (const value of lines) take(value, monotonicMs());
    })();
    // Whoever waits for values that do not come says so; here it must only not be unhandled.
    reading.catch((error: unknown) => {
      this.#log += String(error);
    });
    return {
      [Symbol.asyncDispose]: async () => {
        abort.abort();
        await reading.catch(() => {});
      },
    };
  }

  /** Numbers of a data point in the order of their stream (epoch and sequence number), as the primary site keeps it. */
  storedNumbers(dataPoint: string): number[] {
    const path = join(this.#directory, primaryName, 'primary-site.db');
    const database = openDatabase(path, { readonly: true });
    try {
      return database
        .prepare<[], Uint8Array>(
          `SELECT bytes FROM frames JOIN epochs USING (epoch_id) WHERE kind = 'data' ORDER BY number, seq`,
        )
        .pluck()
        .all()
        .flatMap((bytes) => numbersOf(bytes, dataPoint));
    } finally {
      database.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const signal = this.#options.profileDirectory === undefined ? 'SIGKILL' : 'SIGTERM';
    for (const node of this.nodes.toReversed()) await this.#end(node, signal);
    await this.#proxy?.[Symbol.asyncDispose]();
  }

  #entry(node: string): string {
    if (node === primaryName) return 'primary-site/main.ts';
    if (node !== sourceName) return 'broker/relay/main.ts';
    return this.#options.streamCount === undefined
      ? 'host-collector/main.ts'
      : 'bench/chain/stream-source.ts';
  }

  /** Identities of all sites and the configuration of every process. */
  async #configure(): Promise<void> {
    const ports = new Map<string, number>();
    for (const node of this.nodes) ports.set(node, await freePort());
    for (const [index, node] of this.nodes.entries()) {
      const before = this.nodes[index - 1];
      const port = ports.get(node) ?? 0;
      const site = await this.#site(node, port, before);
      let dialled = before === undefined ? 0 : (ports.get(before) ?? 0);
      if (index === 1 && this.#options.countsBytes === true) {
        this.#proxy = new CountingProxy(dialled);
        dialled = await this.#proxy.start();
      }
      const own = this.#ownConfig(node, port, dialled, this.nodes[index + 1]);
      const dataDirectory = join(this.#directory, node);
      mkdirSync(dataDirectory);
      const config = { dataDirectory, controlSocket: this.#socket(node), ...site, ...own };
      writeFileSync(this.#configPath(node), JSON.stringify(config));
    }
  }

  #ownConfig(node: string, port: number, dialled: number, next: string | undefined): object {
    const { protection, streamCount } = this.#options;
    const { tls, signs, seals } = protection;
    const url = `${tls ? 'mqtts' : 'mqtt'}://127.0.0.1:${dialled}`;
    if (node === primaryName) {
      const keys = seals ? { keysDirectory: join(this.#directory, 'keys') } : {};
      // A made-up source signs nothing.
      const signatures = signs && streamCount === undefined ? 'required' : 'off';
      return { mqttUrl: url, relation: node, jsonTopics: false, signatures, ...keys };
    }
    if (node !== sourceName) {
      const relations = [
        { relation: node, direction: 'upstream', dial: url },
        { relation: next, direction: 'downstream' },
      ];
      return { logLevel: 'warn', listen: { port }, relations };
    }
    if (streamCount !== undefined) return { port, relation: next, streamCount };
    const listens = tls ? { mqttPort: 0, listen: { port } } : { mqttPort: port };
    return { logLevel: 'warn', relations: [next], ...listens, signFrames: signs };
  }

  async #site(node: string, port: number, before: string | undefined): Promise<object> {
    if (!this.#options.protection.tls) return {};
    const clock = new SystemClock();
    const siteDirectory = join(this.#directory, `${node}-site`);
    await initSite(clock, siteDirectory, { name: node, port });
    if (before !== undefined) {
      const producer = join(this.#directory, `${before}-site`);
      await introduceSites(clock, node, { producer, consumer: siteDirectory });
    }
    return { siteDirectory };
  }

  async #end(node: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#children.get(node);
    this.#children.delete(node);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
    }, stopTimeoutMs);
    await exited;
    clearTimeout(timer);
  }

  #configPath(node: string): string {
    return join(this.#directory, `${node}.json`);
  }

  #socket(node: string): string {
    return join(this.#directory, `${node}.sock`);
  }

  #client(node: string): ControlClient {
    return new ControlClient({ socketPath: this.#socket(node), peer: node, startCommand: 'none' });
  }
}

const watchedValueSchema = z.object({ vm: z.string(), value: z.unknown() });
export type WatchedValue = z.output<typeof watchedValueSchema>;

function numbersOf(bytes: Uint8Array, dataPoint: string): number[] {
  const decoded = decodeFrame(bytes);
  if (!decoded.ok) throw new Error('a frame that was stored can be decoded');
  return decoded.frame.records.flatMap((record) =>
    record.kind === 'delivery' && record.delivery.kind === 'raw'
      ? record.delivery.measurements
          .filter((measurement) => measurement.dataPoint === dataPoint)
          .map(({ value }) => Number(value))
      : [],
  );
}
