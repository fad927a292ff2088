import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { eventually } from '../../test/support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../test/support/mounted-agent.ts';
import { monotonicMs } from '../running-instance.ts';
import { readStamps, runWriter } from '../writer.ts';
import { Arrivals } from './arrivals.ts';
import { BenchChain, type ChainOptions } from './bench-chain.ts';

/** What one load became: when each value was sent, and what of it arrived. */
export interface Delivered {
  /** By number from 1: when the save's close returned (or the line was durable), monotonic ms; NaN: it failed. */
  readonly sentAtMs: ArrayLike<number>;
  readonly arrivals: Arrivals;
}

export interface Load {
  readonly ratePerSecond: number;
  readonly durationMs: number;
}

const dataPoint = 'kpi/writer-0-0/sequence';
const stallMaxMs = 20_000;
const arrivalTimeoutMs = 10 * 60_000;

/** A chain behind a real mount of a real agent, `synchronous` FULL, and one writer in C. */
export class MountedChain implements AsyncDisposable {
  readonly chain: BenchChain;
  readonly #agent: MountedAgent;
  readonly #diskPath: string;
  readonly #arrivals = new Arrivals();
  readonly #watch: AsyncDisposable;

  private constructor(chain: BenchChain, agent: MountedAgent, diskPath: string) {
    this.chain = chain;
    this.#agent = agent;
    this.#diskPath = diskPath;
    this.#watch = chain.watch(dataPoint, ({ value }, atMs) => {
      this.#arrivals.take(Number(value), atMs);
    });
  }

  static async start(diskPath: string, options: ChainOptions): Promise<MountedChain> {
    mkdirSync(diskPath);
    const agent = await mountAgent({ synchronous: 'FULL', dataParentPath: diskPath });
    const chain = new BenchChain(join(diskPath, 'chain'), options);
    try {
      await chain.start();
      await chain.addVm('vm1', `unix:${join(dirname(agent.mountPath), 'channel.sock')}`);
      const mounted = new MountedChain(chain, agent, diskPath);
      await mounted.#warmUp();
      return mounted;
    } catch (error) {
      await chain[Symbol.asyncDispose]();
      await agent[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** One load for each chain: the numbers of a second one would begin at 1 again. */
  async deliver(load: Load): Promise<Delivered> {
    const stampsPath = join(this.#diskPath, 'stamps');
    const report = await runWriter({
      directory: join(this.#agent.mountPath, 'unencrypted'),
      writerCount: 1,
      durationMs: load.durationMs,
      savesMax: Math.ceil((load.ratePerSecond * load.durationMs) / 1_000),
      ratePerSecond: load.ratePerSecond,
      stampsPath,
    });
    const [sentAtMs = new Float64Array()] = readStamps(stampsPath, report);
    await allArrived(this.#arrivals, report.saves - report.failures);
    return { sentAtMs, arrivals: this.#arrivals };
  }

  /** The numbers in the order of their stream. */
  storedNumbers(): number[] {
    return this.chain.storedNumbers(dataPoint);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch[Symbol.asyncDispose]();
    await this.chain[Symbol.asyncDispose]();
    await this.#agent[Symbol.asyncDispose]();
  }

  /** Into a directory of its own, so that its numbers are not mistaken for those of the load. */
  async #warmUp(): Promise<void> {
    const directory = join(this.#agent.mountPath, 'unencrypted', 'warm-up');
    mkdirSync(directory);
    const warmUp = new Arrivals();
    await using _watch = this.chain.watch('kpi/warm-up*/sequence', ({ value }, atMs) => {
      warmUp.take(Number(value), atMs);
    });
    const savesMax = 200;
    await runWriter({
      directory,
      writerCount: 1,
      durationMs: 10_000,
      savesMax,
      ratePerSecond: 200,
    });
    await eventually(() => warmUp.count === savesMax, { timeoutMs: stallMaxMs });
  }
}

/** Resolves when `count` values are there, or nothing has come for `stallMaxMs`. */
export async function allArrived(
  arrivals: { readonly count: number; readonly newestAtMs: number },
  count: number,
): Promise<void> {
  const startMs = monotonicMs();
  const hasStalled = (): boolean =>
    monotonicMs() - Math.max(arrivals.newestAtMs, startMs) > stallMaxMs;
  await eventually(() => arrivals.count >= count || hasStalled(), {
    timeoutMs: arrivalTimeoutMs,
    pollMs: 50,
  });
}
