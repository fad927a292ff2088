import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';

import { exitCodeConfig } from '../../common/config/load-config.ts';
import { backoffDelayMs, type BackoffPolicy } from '../../common/runtime/backoff.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Random } from '../../common/runtime/random.ts';
import { readyMessageSchema } from '../../common/runtime/run-process.ts';
import type { Service } from '../../common/runtime/service.ts';
import { LastWords } from './last-words.ts';

export interface ChildProcessOptions {
  readonly name: string;
  /** The compiled main; see compiledEntry. It must call runProcess, which reports readiness. */
  readonly entry: string;
  readonly arguments: readonly string[];
  /** Descriptors of ours that the child gets as 4, 5, ... (3 is the IPC channel). */
  readonly descriptors?: readonly number[];
  readonly readyMaxMs?: number;
  /** Time to drain after SIGTERM; then SIGKILL. */
  readonly drainMaxMs?: number;
  readonly restartPolicy?: BackoffPolicy;
}

export interface ChildProcessDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Gets what the child writes to standard output and error, as it comes. */
  readonly takeOutput: (chunk: Buffer) => void;
}

export interface ChildStatus {
  readonly name: string;
  /** null while it is not running. */
  readonly pid: number | null;
  readonly startedAtUs: number;
  readonly restartCount: number;
}

/** A child that did not become ready; the message has its last words. */
export class ChildProcessError extends OperatingError<'child-failed' | 'child-not-ready'> {
  override readonly name = 'ChildProcessError';
}

const readyMaxMsDefault = 30_000;
const drainMaxMsDefault = 10_000;
/** A crash loop costs one start in ten seconds; a part that is missing for ever shows in `isobar status`. */
const restartPolicyDefault: BackoffPolicy = {
  initialMs: 100,
  maxMs: 10_000,
  attemptsMax: Number.POSITIVE_INFINITY,
};
/** A child that lived this long begins with the shortest delay again. */
const stableAfterMs = 30_000;

/**
 * One child process as a Service: `start` resolves when the child says ready; a child that dies later is started again
 * after a growing delay, for as long as it takes; `stop` lets it drain, then kills it.
 *
 *   stopped --start--> starting --ready--> running --died--> waiting --(backoff)--> starting ...
 *      ^-------------------------- stop ------------------------'
 *
 * The child leads a session of its own, so that a Ctrl-C in the terminal reaches only us and the order of stopping is
 * ours. Should we die, the IPC channel closes and the child stops by itself.
 */
export class ChildProcessService implements Service {
  readonly name: string;
  readonly #options: ChildProcessOptions;
  readonly #dependencies: ChildProcessDependencies;
  readonly #lastWords = new LastWords();
  #child: ChildProcess | undefined;
  #startedAtUs = 0;
  #restartCount = 0;
  #stopping: AbortController | undefined;
  #supervision: Promise<void> = Promise.resolve();

  constructor(options: ChildProcessOptions, dependencies: ChildProcessDependencies) {
    this.name = options.name;
    this.#options = options;
    this.#dependencies = dependencies;
  }

  /** @throws ChildProcessError when the child ends or says nothing before it is ready */
  async start(): Promise<void> {
    this.#stopping = new AbortController();
    const child = this.#spawn();
    try {
      await this.#ready(child);
    } catch (error) {
      this.#stopping.abort();
      await this.#end(child);
      throw error;
    }
    this.#supervision = this.#supervise(child, this.#stopping.signal);
  }

  async stop(): Promise<void> {
    const stopping = this.#stopping;
    if (stopping === undefined || stopping.signal.aborted) return;
    stopping.abort();
    if (this.#child !== undefined) await this.#end(this.#child);
    await this.#supervision;
  }

  /** SIGKILL, now; for a second Ctrl-C. */
  kill(): void {
    this.#stopping?.abort();
    this.#child?.kill('SIGKILL');
  }

  /** Resolves when no child runs; after {@link kill} or {@link stop}. */
  async gone(): Promise<void> {
    if (this.#child !== undefined) await exitOf(this.#child);
  }

  status(): ChildStatus {
    return {
      name: this.name,
      pid: this.#child?.pid ?? null,
      startedAtUs: this.#startedAtUs,
      restartCount: this.#restartCount,
    };
  }

  #spawn(): ChildProcess {
    const { entry, descriptors = [] } = this.#options;
    const child = spawn(process.execPath, [entry, ...this.#options.arguments], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc', ...descriptors],
      detached: true,
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.#lastWords.add(chunk);
        this.#dependencies.takeOutput(chunk);
      });
    }
    // A failed spawn is reported by `error` alone; #exit makes an exit of it.
    child.on('error', (error) => {
      this.#lastWords.add(Buffer.from(`${error.message}\n`));
    });
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined;
    });
    this.#child = child;
    this.#startedAtUs = this.#dependencies.clock.wallUs();
    return child;
  }

  async #ready(child: ChildProcess): Promise<void> {
    const { clock } = this.#dependencies;
    const readyMaxMs = this.#options.readyMaxMs ?? readyMaxMsDefault;
    const outcome = new AbortController();
    try {
      await Promise.race([
        this.#readyMessage(child, outcome.signal),
        exitOf(child).then(async ({ code, signal }) => {
          await outputEnd(child);
          throw new ChildProcessError(
            'child-failed',
            `${this.name} did not start (${signal ?? `exit code ${code ?? '?'}`}): ${this.#lastWords.summary()}`,
            { needsSetup: code === exitCodeConfig, context: { exitCode: code, signal } },
          );
        }),
        clock.sleep(readyMaxMs, outcome.signal).then(() => {
          throw new ChildProcessError(
            'child-not-ready',
            `${this.name} was not ready within ${readyMaxMs} ms: ${this.#lastWords.summary()}`,
          );
        }),
      ]);
    } finally {
      outcome.abort();
    }
  }

  async #readyMessage(child: ChildProcess, signal: AbortSignal): Promise<void> {
    for (;;) {
      const [message] = await once(child, 'message', { signal });
      if (readyMessageSchema.safeParse(message).success) return;
    }
  }

  async #supervise(first: ChildProcess, stopping: AbortSignal): Promise<void> {
    const { clock, log, random } = this.#dependencies;
    const policy = this.#options.restartPolicy ?? restartPolicyDefault;
    let child = first;
    let attemptIndex = 0;
    let startedAtMs = clock.monotonicMs();
    for (;;) {
      const { code, signal } = await exitOf(child);
      if (stopping.aborted) return;
      attemptIndex = clock.monotonicMs() - startedAtMs > stableAfterMs ? 0 : attemptIndex + 1;
      const delayMs = backoffDelayMs(policy, attemptIndex, random);
      log.warn('child-died', { child: this.name, exitCode: code, signal, delayMs });
      await clock.sleep(delayMs, stopping).catch(() => {});
      if (stopping.aborted) return;
      this.#restartCount += 1;
      startedAtMs = clock.monotonicMs();
      child = this.#spawn();
    }
  }

  async #end(child: ChildProcess): Promise<void> {
    const { clock, log } = this.#dependencies;
    const drainMaxMs = this.#options.drainMaxMs ?? drainMaxMsDefault;
    const ended = new AbortController();
    child.kill('SIGTERM');
    const kill = async (): Promise<void> => {
      await clock.sleep(drainMaxMs, ended.signal);
      log.warn('child-killed', { child: this.name, drainMaxMs });
      child.kill('SIGKILL');
    };
    const killing = kill().catch(() => {});
    await exitOf(child);
    ended.abort();
    await killing;
  }
}

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Resolves when the child is gone, also when it already is or never came to be. */
async function exitOf(child: ChildProcess): Promise<Exit> {
  const hasExited = child.exitCode !== null || child.signalCode !== null;
  if (hasExited || child.pid === undefined) {
    return { code: child.exitCode, signal: child.signalCode };
  }
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      resolve({ code, signal });
    });
  });
}

/** An exit may be heard of before the last output is read. */
async function outputEnd(child: ChildProcess): Promise<void> {
  await Promise.all(
    [child.stdout, child.stderr].map(async (stream) => {
      if (stream !== null && !stream.readableEnded && !stream.destroyed) await once(stream, 'end');
    }),
  );
}
