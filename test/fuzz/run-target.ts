import { createHash } from 'node:crypto';
import {
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
  closeSync,
  ftruncateSync,
  existsSync,
} from 'node:fs';
import { join } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';
import { FuzzRandom } from './fuzz-random.ts';
import type { FuzzTarget, RunningFuzzTarget } from './fuzz-target.ts';
import { mutate } from './mutate.ts';

/** Processor time, ms, that one input may take: what a loaded machine adds does not count. */
const inputCpuMsMax = 1_000;
const batchMs = 500;
const inputBytesMaxDefault = 65_536;
const mebibyte = 1_048_576;
const growthBytesMaxDefault = 48 * mebibyte;
/** One input in so many is a valid one as it is, and one is generated where the target can. */
const validEvery = 16;
const generatedEvery = 3;

export interface FuzzRun {
  readonly seed: number;
  readonly seconds: number;
  /** Runs this input alone. */
  readonly replayPath?: string;
  /** Holds the input that is being tried, for whoever has to end a run that hangs. */
  readonly currentInputPath: string;
}

export interface FuzzOutcome {
  readonly inputCount: number;
  readonly keptCount: number;
  readonly slowestCpuMs: number;
  readonly growthBytes: number;
  readonly failure?: { readonly reason: string; readonly input: Uint8Array };
}

/** Where what made a target fail is kept for good. */
export function keptInputs(target: string): readonly { path: string; input: Uint8Array }[] {
  const directory = join(packageRoot(), 'test', 'fuzz', 'corpus', target);
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .toSorted()
    .map((name) => ({ path: join(directory, name), input: readFileSync(join(directory, name)) }));
}

/** Keeps a failing input below .cache/fuzz/; returns its path. */
export function saveFailure(target: string, input: Uint8Array): string {
  const directory = join(packageRoot(), '.cache', 'fuzz');
  mkdirSync(directory, { recursive: true });
  const digest = createHash('sha256').update(input).digest('hex').slice(0, 12);
  const path = join(directory, `${target}-${digest}.bin`);
  writeFileSync(path, input);
  return path;
}

/** Tries inputs until the time is over or one fails: kept ones, the samples, then made ones. */
export async function runTarget(target: FuzzTarget, run: FuzzRun): Promise<FuzzOutcome> {
  const session = new FuzzSession(target, run);
  return session.run();
}

class FuzzSession {
  readonly #target: FuzzTarget;
  readonly #run: FuzzRun;
  readonly #random: FuzzRandom;
  readonly #currentInput: number;
  #stray: Error | undefined;
  #inputCount = 0;
  #keptCount = 0;
  #slowestCpuMs = 0;
  #earlyBytes: number | undefined;
  #latestInput: Uint8Array = new Uint8Array();

  constructor(target: FuzzTarget, run: FuzzRun) {
    this.#target = target;
    this.#run = run;
    this.#random = new FuzzRandom(run.seed);
    this.#currentInput = openSync(run.currentInputPath, 'w');
    for (const event of ['uncaughtException', 'unhandledRejection']) {
      process.on(event, (error: unknown) => {
        this.#stray ??= new Error(event, { cause: error });
      });
    }
  }

  async run(): Promise<FuzzOutcome> {
    const running = await this.#target.start();
    try {
      await this.#tryAll(running);
      return this.#outcome();
    } catch (error) {
      const reason = describe(error);
      return { ...this.#outcome(), failure: { reason, input: this.#latestInput } };
    } finally {
      closeSync(this.#currentInput);
      await running.stop();
    }
  }

  async #tryAll(running: RunningFuzzTarget): Promise<void> {
    const { replayPath, seconds } = this.#run;
    if (replayPath !== undefined) {
      await this.#try(running, readFileSync(replayPath));
      await running.checkStillWorks();
      return;
    }
    this.#tellProgress();
    for (const { input } of keptInputs(this.#target.name)) {
      await this.#try(running, input);
      this.#keptCount += 1;
      this.#tellProgress();
    }
    for (const sample of running.samples) await this.#try(running, sample);
    await running.checkStillWorks();
    const endMs = performance.now() + seconds * 1_000;
    const earlyMs = performance.now() + seconds * 250;
    while (performance.now() < endMs) {
      await this.#tryBatch(running);
      await running.checkStillWorks();
      if (this.#earlyBytes === undefined && performance.now() > earlyMs) {
        this.#earlyBytes = usedBytes();
      }
      this.#tellProgress();
    }
    this.#checkGrowth();
  }

  #tellProgress(): void {
    process.send?.({ inputCount: this.#inputCount });
  }

  async #tryBatch(running: RunningFuzzTarget): Promise<void> {
    const endMs = performance.now() + batchMs;
    while (performance.now() < endMs) await this.#try(running, this.#nextInput(running));
  }

  #nextInput(running: RunningFuzzTarget): Uint8Array {
    const random = this.#random;
    if (random.once(validEvery)) return random.pick(running.samples);
    const generated =
      running.generate !== undefined && random.once(generatedEvery)
        ? [running.generate(random)]
        : running.samples;
    if (generated !== running.samples && random.once(2)) return random.pick(generated);
    const { inputBytesMax = inputBytesMaxDefault, dictionary = [] } = this.#target;
    return mutate(generated, random, { inputBytesMax, dictionary });
  }

  async #try(running: RunningFuzzTarget, input: Uint8Array): Promise<void> {
    this.#latestInput = input;
    this.#inputCount += 1;
    ftruncateSync(this.#currentInput);
    writeSync(this.#currentInput, input, 0, input.length, 0);
    const before = process.cpuUsage();
    await running.run(input);
    const { user, system } = process.cpuUsage(before);
    const cpuMs = (user + system) / 1_000;
    this.#slowestCpuMs = Math.max(this.#slowestCpuMs, cpuMs);
    if (this.#stray !== undefined) throw this.#stray;
    if (cpuMs > inputCpuMsMax) {
      throw new Error(`took ${Math.round(cpuMs)} ms of processor time, at most ${inputCpuMsMax}`);
    }
  }

  #checkGrowth(): void {
    const { growthBytesMax = growthBytesMaxDefault } = this.#target;
    const { growthBytes } = this.#outcome();
    if (growthBytes <= growthBytesMax) return;
    const figures = [growthBytes, growthBytesMax].map((bytes) => (bytes / mebibyte).toFixed(1));
    throw new Error(`memory grew by ${figures[0]} MiB, at most ${figures[1]}`);
  }

  #outcome(): FuzzOutcome {
    return {
      inputCount: this.#inputCount,
      keptCount: this.#keptCount,
      slowestCpuMs: this.#slowestCpuMs,
      growthBytes: this.#earlyBytes === undefined ? 0 : usedBytes() - this.#earlyBytes,
    };
  }
}

/** What lives after a collection, in the heap and outside. */
function usedBytes(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : `\n  caused by ${describe(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}
