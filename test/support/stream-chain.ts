import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { initSite, introduceSites } from '../../cli/demo/introduce-sites.ts';
import { makeReaderKey } from '../../cli/demo/reader-key.ts';
import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient } from '../../common/control/control-client.ts';
import {
  lossesAnswerSchema,
  queryAnswerSchema,
  readerStatusSchema,
  type IntegrityRecord,
  type Reading,
  type ReaderVmStatus,
} from '../../common/control/reader-answer.ts';
import {
  relayPaths,
  relayStatusSchema,
  type RelayStatus,
} from '../../common/control/relay-answer.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { openDatabase, type Database } from '../../common/sqlite/database.ts';
import { decodeFrame, decodeFrameEnvelope } from '../../common/wire/frame-codec.ts';
import type { Value } from '../../common/wire/value.ts';
import type { VmDescriptor } from '../../common/wire/vm-descriptor.ts';
import { eventually } from './eventually.ts';
import { freePort } from './external-broker.ts';
import { framesOf, openerOf, valuesOf, type StoredFrame } from './stored-frames.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { openTranscript, type TlsTranscript } from './tls-transcript.ts';

const entries = {
  collector: 'host-collector/main.ts',
  'relay-1': 'broker/relay/main.ts',
  'relay-2': 'broker/relay/main.ts',
  reader: 'primary-site/main.ts',
} as const;
export type ChainPart = keyof typeof entries;

const neighboursSchema = z.object({
  neighbours: z.array(z.object({ relation: z.string(), isLive: z.boolean() })),
});

const relays = ['relay-1', 'relay-2'] as const;

export interface ChainFaults {
  /** Hops, named after who receives, that lead through a {@link TcpProxy}. */
  readonly proxied?: readonly ChainPart[];
  /** Relations of a part beside those of the chain. */
  readonly relations?: Partial<Record<ChainPart, readonly object[]>>;
  /** Hops, named after who receives, where who sends dials. */
  readonly producerDials?: readonly ChainPart[];
  /** Keys of a part's configuration beside those that the chain needs. */
  readonly configs?: Partial<Record<ChainPart, object>>;
  /** Whether what passes through proxies is kept, with the secrets to open it: {@link StreamChain.transcripts}. */
  readonly records?: boolean;
  /** Where a part keeps everything, when not below the directory of the chain. */
  readonly directories?: Partial<Record<ChainPart, string>>;
  /** What each process is started by, before our own command: another program that becomes it. */
  readonly command?: readonly string[];
  /** How long ago the sites were founded; only for those of their own. */
  readonly sitesAgeMs?: number;
  /** Of a part's process, beside ours. */
  readonly environments?: Partial<Record<ChainPart, Readonly<Record<string, string>>>>;
}

interface Hop {
  /** Where the part that receives would listen. */
  readonly port: number;
  readonly dial?: string;
  readonly isDialledBy?: ChainPart | undefined;
}

/**
 * A host collector with its embedded broker, intermediaries and a primary site's reader, as processes, behind one guest
 * channel. Every hop is a relation named after who receives, on a broker of who sends, or receives where that is dialled.
 */
export class StreamChain implements AsyncDisposable {
  readonly log: string[] = [];
  readonly #directory: string;
  readonly #parts: readonly ChainPart[];
  readonly #isSecure: boolean;
  #readerKeyPem = '';
  readonly #children = new Map<ChainPart, ChildProcess>();
  readonly #faults: ChainFaults;
  readonly #proxies = new Map<ChainPart, TcpProxy>();

  /**
   * With `relayCount` intermediaries, 0 to 2; `isSecure`: each part is a site of its own, behind mutual TLS, all frames
   * are signed, and data is sealed for the reader.
   */
  constructor(directory: string, relayCount = 0, isSecure = false, faults: ChainFaults = {}) {
    this.#faults = faults;
    this.#isSecure = isSecure;
    this.#directory = directory;
    this.#parts = ['collector', ...relays.slice(0, relayCount), 'reader'];
  }

  /** Registers `descriptor` once the collector answers; by then the reader does too. */
  async start(descriptor: object): Promise<void> {
    for (const [part, config] of await this.#configs()) {
      mkdirSync(this.dataDirectory(part), { recursive: true });
      const common = {
        dataDirectory: this.dataDirectory(part),
        controlSocket: this.#socket(part),
      };
      writeFileSync(
        this.#config(part),
        JSON.stringify({ ...common, ...config, ...this.#faults.configs?.[part] }),
      );
      this.run(part);
    }
    const seal = this.#isSecure ? { primarySitePublicKey: this.#readerKeyPem } : {};
    const sealed = { ...descriptor, ...seal };
    await eventually(() => this.vms(), { timeoutMs: 30_000 });
    await eventually(() => this.add(sealed), { timeoutMs: 15_000 });
  }

  /** As `isobar vm add` does. */
  add(descriptor: object): Promise<VmDescriptor> {
    return this.#client('collector').call('POST', '/v1/vms', descriptor, vmAnswerSchema);
  }

  run(part: ChainPart): void {
    const main = [process.execPath, compiledEntry(entries[part]), '--config', this.#config(part)];
    const [program = '', ...parameters] = [...(this.#faults.command ?? []), ...main];
    const child = spawn(program, parameters, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        ...(this.#faults.records === true
          ? { NODE_OPTIONS: `--tls-keylog=${this.#keyLog(part)}` }
          : {}),
        ...this.#faults.environments?.[part],
      },
    });
    for (const output of [child.stdout, child.stderr]) {
      output.on('data', (chunk: Buffer) => {
        this.log.push(`${part} ${chunk.toString()}`);
        if (this.log.length > 1_000) this.log.shift();
      });
    }
    this.#children.set(part, child);
  }

  /** kill -9, and starts it again. */
  async crash(part: ChainPart): Promise<void> {
    await this.kill(part);
    this.run(part);
  }

  /** The way to `part`, which was named in `proxied`. */
  hop(part: ChainPart): TcpProxy {
    const proxy = this.#proxies.get(part);
    if (proxy === undefined) throw new Error(`the hop to ${part} leads through no proxy`);
    return proxy;
  }

  /** What the ends of the hop to `part` were sent, without TLS; the hop is `proxied`, and `records` is set. */
  transcripts(part: ChainPart): readonly TlsTranscript[] {
    const keyLog = readFileSync(this.#keyLog(part), 'utf8');
    // Who dials while the other is down has a connection to the proxy, and no answer.
    return this.hop(part)
      .recordings.filter(({ fromServer }) => fromServer.length > 0)
      .map((recording) => openTranscript(recording, keyLog));
  }

  /** Resolves with the signal that a process ends by. */
  async ended(part: ChainPart): Promise<NodeJS.Signals | null> {
    const child = this.#children.get(part);
    if (child === undefined) throw new Error(`${part} does not run`);
    const [, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return signal;
  }

  /** kill -9; `run` starts it again. */
  kill(part: ChainPart): Promise<void> {
    return this.#end(part, 'SIGKILL');
  }

  /** TCP ports where a part's process listens. */
  listeningPorts(part: ChainPart): number[] {
    const pid = this.#children.get(part)?.pid ?? 0;
    const own = new Set(
      readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`)),
    );
    return ['tcp', 'tcp6'].flatMap((table) =>
      readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
        .split('\n')
        .map((line) => line.trim().split(/\s+/))
        .filter(([, , , state, , , , , , inode]) => state === '0A' && own.has(`socket:[${inode}]`))
        .map(([, local = '']) => Number.parseInt(local.split(':')[1] ?? '', 16)),
    );
  }

  /** Whether each neighbour of a part is there, as that part sees it; of a reader's producer too. */
  async neighbours(part: ChainPart): Promise<Record<string, boolean>> {
    const client = this.#client(part);
    if (part === 'reader') {
      const { isLive } = await client.get('/v1/status', readerStatusSchema);
      return { reader: isLive };
    }
    const { neighbours } = await client.get('/v1/status', neighboursSchema);
    return Object.fromEntries(neighbours.map(({ relation, isLive }) => [relation, isLive]));
  }

  /** What a relay shows of itself. */
  relayStatus(part: (typeof relays)[number]): Promise<RelayStatus> {
    return this.#client(part).get(relayPaths.status, relayStatusSchema);
  }

  /** The identity of a part; only with `isSecure`. */
  siteDirectory(part: ChainPart): string {
    return join(this.#directory, `${part}-site`);
  }

  /** Where a process keeps everything. */
  dataDirectory(part: ChainPart): string {
    return this.#faults.directories?.[part] ?? join(this.#directory, part);
  }

  /** Of the processes that run. */
  pids(): Partial<Record<ChainPart, number>> {
    return Object.fromEntries([...this.#children].map(([part, { pid }]) => [part, pid]));
  }

  /** Processes that have ended and were not started again. */
  dead(): readonly ChainPart[] {
    return this.#parts.filter((part) => {
      const child = this.#children.get(part);
      return child === undefined || child.exitCode !== null || child.signalCode !== null;
    });
  }

  /** Whether a process has logged this event lately. */
  says(part: ChainPart, event: string): boolean {
    return this.log.some((line) => line.startsWith(`${part} `) && line.includes(event));
  }

  /** What a process says of itself: its output so far, its arguments and environment. */
  words(part: ChainPart): string {
    const output = this.log.filter((line) => line.startsWith(`${part} `)).join('');
    const process = `/proc/${this.#children.get(part)?.pid ?? 0}`;
    return [
      output,
      ...['cmdline', 'environ'].map((name) => readFileSync(`${process}/${name}`)),
    ].join('\n');
  }

  /** The public key, PEM, that data is sealed for; only with `isSecure`. */
  get readerKeyPem(): string {
    return this.#readerKeyPem;
  }

  /** What the reader shows of its VMs. */
  async vms(): Promise<readonly ReaderVmStatus[]> {
    return (await this.#client('reader').get('/v1/status', readerStatusSchema)).vms;
  }

  /** What the reader found wrong with frames. */
  async integrity(): Promise<readonly IntegrityRecord[]> {
    return (await this.#client('reader').get('/v1/status', readerStatusSchema)).integrity;
  }

  /** What neighbours declared lost to the reader, as they signed it. */
  async losses(): Promise<z.output<typeof lossesAnswerSchema>['losses']> {
    return (await this.#client('reader').get('/v1/losses', lossesAnswerSchema)).losses;
  }

  /** What the reader answers to a query, by position: the order of arrival. */
  async readings(pattern = '**'): Promise<readonly Reading[]> {
    const path = `/v1/query?limit=100000&sinceUs=0&pattern=${encodeURIComponent(pattern)}`;
    const answer = await this.#client('reader').get(path, queryAnswerSchema);
    return answer.readings.toSorted((left, right) => left.position - right.position);
  }

  /** As `isobar vm set-monitoring` does. @throws ControlError `revision-conflict` */
  setMonitoring(vm: string, revision: number, monitoring: object): Promise<VmDescriptor> {
    const path = collectorPaths.monitoring(vm);
    const body = { revision, monitoring };
    return this.#client('collector').call('PUT', path, body, vmAnswerSchema);
  }

  /** Most memory that a process had in use since it started, bytes. */
  peakMemoryBytes(part: ChainPart): number {
    const status = readFileSync(`/proc/${this.#children.get(part)?.pid ?? 0}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1_024;
  }

  /** Of a VM, the value that arrived last at the reader. */
  newestValue(vm: string): Value | undefined {
    return this.#atReader((database) =>
      database
        .prepare<[string], { value: Value }>(
          `SELECT value FROM readings JOIN series USING (series_id) WHERE vm = ?
           ORDER BY position DESC LIMIT 1`,
        )
        .get(vm),
    )?.value;
  }

  /**
   * Values of raw deliveries of vm1 that the reader has, in the order of their frames; of sealed ones what its key opens.
   */
  values(): readonly Value[] {
    return this.epochsOf('vm1').flat();
  }

  /** The values of one VM, by epoch. */
  epochsOf(vm: string): readonly (readonly Value[])[] {
    const epochs = new Map<number, Value[]>();
    for (const frame of this.#dataFrames()) {
      if (frame.vm !== vm) continue;
      epochs.set(frame.number, [...(epochs.get(frame.number) ?? []), ...frame.values]);
    }
    return [...epochs.values()];
  }

  /** Frames at the reader that are not signed, or that hold a delivery in the clear. */
  unprotectedFrames(): number {
    return this.#atReader(framesOf).filter(({ bytes }) => {
      const decoded = decodeFrameEnvelope(bytes);
      if (!decoded.ok || decoded.envelope.signature.length === 0) return true;
      const inTheClear = decodeFrame(bytes);
      return inTheClear.ok && inTheClear.frame.records.some(({ kind }) => kind === 'delivery');
    }).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const part of this.#parts.toReversed()) await this.#end(part, 'SIGKILL');
    for (const proxy of this.#proxies.values()) await proxy[Symbol.asyncDispose]();
  }

  #dataFrames(): (StoredFrame & { readonly values: readonly Value[] })[] {
    return this.#atReader((database) => {
      const open = this.#isSecure ? openerOf(database, this.#keysDirectory) : undefined;
      return framesOf(database)
        .filter(({ kind }) => kind === 'data')
        .map((frame) => ({ ...frame, values: valuesOf(frame.bytes, open) }));
    });
  }

  #atReader<Result>(read: (database: Database) => Result): Result {
    const path = join(this.dataDirectory('reader'), 'primary-site.db');
    const database = openDatabase(path, { readonly: true });
    try {
      return read(database);
    } finally {
      database.close();
    }
  }

  /** Each part's own configuration, by part; each sends to the next. */
  async #configs(): Promise<Map<ChainPart, object>> {
    const configs = new Map<ChainPart, object>();
    if (this.#isSecure) this.#readerKeyPem = makeReaderKey(this.#keysDirectory);
    const hops = await this.#hops();
    for (const [index, part] of this.#parts.entries()) {
      const { port, dial, isDialledBy } = hops.get(part) ?? { port: 0 };
      const site = await this.#site(part, port, this.#parts[index - 1]);
      const next = this.#parts[index + 1];
      const onward = next === undefined ? undefined : hops.get(next);
      const sendsTo = {
        relation: next,
        ...(onward?.isDialledBy === part ? { dial: onward.dial } : {}),
      };
      if (part === 'collector') {
        const broker = this.#isSecure ? { mqttPort: 0, listen: { port } } : { mqttPort: port };
        const meets = 'dial' in sendsTo ? {} : broker;
        configs.set(part, { ...site, ...meets, statusIntervalMs: 500, relations: [sendsTo] });
      } else if (part === 'reader') {
        const keys = this.#isSecure ? { keysDirectory: this.#keysDirectory } : {};
        const meets = isDialledBy === part ? { mqttUrl: dial } : { listen: { port } };
        configs.set(part, { ...site, ...keys, ...meets, relation: part, jsonTopics: false });
      } else {
        const relations = [
          { relation: part, direction: 'upstream', ...(isDialledBy === part ? { dial } : {}) },
          { ...sendsTo, direction: 'downstream' },
          ...(this.#faults.relations?.[part] ?? []),
        ];
        configs.set(part, { ...site, listen: { port }, relations });
      }
    }
    return configs;
  }

  /** By part: where it would listen, and the hop to it: who dials, and what. */
  async #hops(): Promise<Map<ChainPart, Hop>> {
    const hops = new Map<ChainPart, Hop>();
    let before: { readonly part: ChainPart; readonly port: number } | undefined;
    for (const part of this.#parts) {
      const port = await freePort();
      const isDialledBy = this.#faults.producerDials?.includes(part) === true ? before?.part : part;
      const target = isDialledBy === part ? before?.port : port;
      const scheme = this.#isSecure ? 'mqtts' : 'mqtt';
      const dial = `${scheme}://127.0.0.1:${await this.#portTowards(part, target)}`;
      hops.set(part, { port, dial, isDialledBy });
      before = { part, port };
    }
    return hops;
  }

  async #portTowards(part: ChainPart, port: number | undefined): Promise<number> {
    if (port === undefined || this.#faults.proxied?.includes(part) !== true) return port ?? 0;
    const proxy = await TcpProxy.start(port, { records: this.#faults.records === true });
    this.#proxies.set(part, proxy);
    return proxy.port;
  }

  /** The identity of a part, trusted by the part before it and trusting that. */
  async #site(part: ChainPart, port: number, before: ChainPart | undefined): Promise<object> {
    if (!this.#isSecure) return {};
    const clock = new EarlierClock(this.#faults.sitesAgeMs ?? 0);
    const siteDirectory = this.siteDirectory(part);
    await initSite(clock, siteDirectory, { name: siteName(part), port });
    if (before !== undefined) {
      const sites = { producer: this.siteDirectory(before), consumer: siteDirectory };
      await introduceSites(clock, part, sites);
    }
    return { siteDirectory };
  }

  get #keysDirectory(): string {
    return join(this.#directory, 'reader-keys');
  }

  async #end(part: ChainPart, signal: NodeJS.Signals): Promise<void> {
    const child = this.#children.get(part);
    this.#children.delete(part);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }

  #config(part: ChainPart): string {
    return join(this.#directory, `${part}.json`);
  }

  #keyLog(part: ChainPart): string {
    return join(this.#directory, `${part}.keys`);
  }

  #socket(part: ChainPart): string {
    return join(this.#directory, `${part}.sock`);
  }

  #client(part: ChainPart): ControlClient {
    return new ControlClient({ socketPath: this.#socket(part), peer: part, startCommand: 'none' });
  }
}

/** The machine's clock as it was some time ago. */
class EarlierClock extends SystemClock {
  readonly #agoMs: number;

  constructor(agoMs: number) {
    super();
    this.#agoMs = agoMs;
  }

  override wallUs(): number {
    return super.wallUs() - this.#agoMs * 1_000;
  }
}

/** A name that stands nowhere else, and differs from others in its middle, so that it can be looked for in any encoding. */
export function siteName(part: ChainPart): string {
  return `${part}-is-the-name`;
}
