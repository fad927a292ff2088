import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { collectorPaths, vmAnswerSchema } from '../../common/control/collector-answer.ts';
import { ControlClient } from '../../common/control/control-client.ts';
import {
  queryAnswerSchema,
  readerStatusSchema,
  type Reading,
  type ReaderVmStatus,
} from '../../common/control/reader-answer.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import { decodeFrame } from '../../common/wire/frame-codec.ts';
import type { Value } from '../../common/wire/value.ts';
import type { VmDescriptor } from '../../common/wire/vm-descriptor.ts';
import { eventually } from './eventually.ts';
import { freePort } from './external-broker.ts';

const entries = { collector: 'host-collector/main.ts', reader: 'primary-site/main.ts' } as const;
export type ChainPart = keyof typeof entries;

/** A host collector with its embedded broker and a primary site's reader, as processes, behind one guest channel. */
export class StreamChain implements AsyncDisposable {
  readonly log: string[] = [];
  readonly #directory: string;
  readonly #children = new Map<ChainPart, ChildProcess>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Registers `descriptor` once the collector answers. */
  async start(descriptor: object): Promise<void> {
    const port = await freePort();
    const configs = {
      collector: { mqttPort: port, statusIntervalMs: 500 },
      reader: { mqttUrl: `mqtt://127.0.0.1:${port}`, jsonTopics: false },
    };
    for (const part of ['collector', 'reader'] as const) {
      mkdirSync(join(this.#directory, part), { recursive: true });
      const common = {
        dataDirectory: join(this.#directory, part),
        controlSocket: this.#socket(part),
      };
      writeFileSync(this.#config(part), JSON.stringify({ ...common, ...configs[part] }));
      this.run(part);
    }
    await eventually(
      () => this.#client('collector').call('POST', '/v1/vms', descriptor, vmAnswerSchema),
      { timeoutMs: 15_000 },
    );
  }

  run(part: ChainPart): void {
    const child = spawn(
      process.execPath,
      [compiledEntry(entries[part]), '--config', this.#config(part)],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    child.stderr.on('data', (chunk: Buffer) => {
      this.log.push(`${part} ${chunk.toString()}`);
      if (this.log.length > 1_000) this.log.shift();
    });
    this.#children.set(part, child);
  }

  /** kill -9, and starts it again. */
  async crash(part: ChainPart): Promise<void> {
    await this.#end(part, 'SIGKILL');
    this.run(part);
  }

  /** What the reader shows of its VMs. */
  async vms(): Promise<readonly ReaderVmStatus[]> {
    return (await this.#client('reader').get('/v1/status', readerStatusSchema)).vms;
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

  /** Values of raw deliveries that the reader has, in the order of their frames. */
  values(): readonly Value[] {
    const path = join(this.#directory, 'reader', 'primary-site.db');
    const database = openDatabase(path, { readonly: true });
    try {
      return database
        .prepare<[], Uint8Array>(
          `SELECT bytes FROM frames JOIN epochs USING (epoch_id) WHERE kind = 'data' ORDER BY number, seq`,
        )
        .pluck()
        .all()
        .flatMap((bytes) => valuesOf(bytes));
    } finally {
      database.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const part of ['reader', 'collector'] as const) await this.#end(part, 'SIGKILL');
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

  #socket(part: ChainPart): string {
    return join(this.#directory, `${part}.sock`);
  }

  #client(part: ChainPart): ControlClient {
    return new ControlClient({ socketPath: this.#socket(part), peer: part, startCommand: 'none' });
  }
}

function valuesOf(bytes: Uint8Array): Value[] {
  const decoded = decodeFrame(bytes);
  if (!decoded.ok) throw new Error('a frame that was stored can be decoded');
  return decoded.frame.records.flatMap((record) =>
    record.kind === 'delivery' && record.delivery.kind === 'raw'
      ? record.delivery.measurements.map(({ value }) => value)
      : [],
  );
}
