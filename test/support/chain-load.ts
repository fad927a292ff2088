import { dirname, join } from 'node:path';

import { eventually } from './eventually.ts';
import type { MountedAgent } from './mounted-agent.ts';
import { SavingWriter } from './saving-writer.ts';
import type { StreamChain } from './stream-chain.ts';

const timeout = { timeoutMs: 60_000 };

/** What {@link ChainLoad.settle} finds beside the values when all is well. */
export const nothingWrong = { acknowledgedWithoutRow: [], missingFrames: 0 };

/** Of the VM behind `agent`: every save is delivered. */
export function chainDescriptor(agent: MountedAgent, id = 'vm1'): object {
  return {
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id,
    guest: { channel: `unix:${join(dirname(agent.mountPath), 'channel.sock')}` },
    monitoring: { specifiers: [{ id: 'kpi', dataPoints: 'kpi/**' }] },
  };
}

/** One writer under load, at full speed unless `pauseMs` is given; `more` resolves after that many further saves. */
export class ChainLoad implements AsyncDisposable {
  readonly writer: SavingWriter;
  readonly #agent: MountedAgent;

  constructor(agent: MountedAgent, pauseMs = 0, first = 1) {
    this.#agent = agent;
    this.writer = new SavingWriter(join(agent.mountPath, 'unencrypted', 'load'), first, pauseMs);
    this.writer.start();
  }

  async more(count: number): Promise<void> {
    const goal = this.writer.acknowledged.length + count;
    await eventually(() => this.writer.acknowledged.length >= goal, timeout);
  }

  /** Ends the load, and waits until the reader has as many values as the guest has rows. */
  async settle(chain: StreamChain): Promise<{
    readonly rows: readonly number[];
    readonly arrived: readonly number[];
    readonly acknowledgedWithoutRow: readonly number[];
    readonly missingFrames: number;
  }> {
    await this.writer.stop();
    const rows = this.#agent.rows('load').map(({ column1 }) => Number(column1));
    const kept = new Set(rows);
    await this.#settled(chain, rows.length);
    const epochs = (await chain.vms()).find(({ vm }) => vm === 'vm1')?.epochs ?? [];
    return {
      rows,
      arrived: chain.values().map(Number),
      acknowledgedWithoutRow: this.writer.acknowledged.filter((value) => !kept.has(value)),
      missingFrames: epochs.reduce((sum, epoch) => sum + epoch.missingFrames + epoch.lostFrames, 0),
    };
  }

  /** Else says who does not run, and where along the chain it stopped. */
  async #settled(chain: StreamChain, rowCount: number): Promise<void> {
    try {
      await eventually(() => chain.values().length >= rowCount, timeout);
    } catch (cause) {
      const heads = JSON.stringify(await chain.vms());
      const dead = chain.dead().join(', ');
      const arrivedCount = chain.values().length;
      const message = `${arrivedCount} of ${rowCount} values are there; not running: ${dead}; the reader: ${heads}`;
      throw new Error(message, { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.writer.stop();
  }
}
