import { type BackoffPolicy, backoffDelayMs } from '../../common/runtime/backoff.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Random } from '../../common/runtime/random.ts';
import type { Service } from '../../common/runtime/service.ts';
import { incarnationsMax } from '../fuse/dev-fuse/kernel-handle.ts';
import { type FuseMount, mountFuse } from '../fuse/mount/fuse-mount.ts';
import { initFlag2, type Negotiation } from '../fuse/protocol/init.ts';
import { type AgentExit, AgentProcess } from './agent-process.ts';
import { AgentWatch } from './agent-watch.ts';
import type { ToSupervisor } from './messages.ts';

export interface SupervisorOptions {
  /** Where to mount; made when it does not exist. */
  readonly mountPath: string;
  /** The agent's compiled entry file (`compiledEntry`), and its arguments. It uses an {@link AgentLink}. */
  readonly entry: string;
  readonly args: readonly string[];
  /** How long an agent may take to be ready: `start` gives up then, a successor is ended and another one started. */
  readonly readyTimeoutMs: number;
  /** An agent that gives no sign of life for about so long is ended and replaced; see {@link AgentWatch}. */
  readonly unresponsiveMaxMs: number;
  /** How long `stop` waits for the agent to drain before it kills it. */
  readonly drainTimeoutMs: number;
  /** Gets what agents write to standard output and error; without it they write to ours. */
  readonly takeOutput?: (chunk: Buffer) => void;
}

/**
 * - `agent-not-ready`: the first agent exited, or was not ready in time
 * - `agent-failing`: agents failed `restartPolicy.attemptsMax` times in a row, or one refused its configuration
 */
export type SupervisorErrorCode = 'agent-not-ready' | 'agent-failing';

/** The agent can't be kept running; its own log says why. */
export class SupervisorError extends OperatingError<SupervisorErrorCode> {
  override readonly name = 'SupervisorError';
}

export interface SupervisorStatus {
  readonly state: 'stopped' | 'starting' | 'running' | 'restarting' | 'stopping' | 'failed';
  readonly mountPath: string | null;
  /** Only the mounting user sees into the mount. */
  readonly isPrivate: boolean;
  readonly agentProcessId: number | null;
  /** When the present agent, or the last one, was started; 0 before the first. */
  readonly agentStartedAtUs: number;
  readonly restarts: number;
}

/** After the first restart, which is at once: half a tenth of a second at least, five at most. */
export const restartPolicy: BackoffPolicy = { initialMs: 100, maxMs: 5_000, attemptsMax: 30 };
/** An agent that was ready this long has not failed to start: the next restart is at once again. */
const stableMs = 10_000;
/** EX_CONFIG of sysexits.h: the agent says that its configuration is wrong, which no restart mends. */
const configurationExitCode = 78;

/**
 * Holds the mount while agents come and go: an agent that dies, by kill -9 too, is replaced, and callers that wait
 * inside the mount get their answers from the next one.
 *
 *   start --> mount --> agent --ready--> running --died--> restarting --+
 *               ^                          ^---- resend (from 6.9) -----|  same connection, pending requests again
 *               `------------------------------- before 6.9, or gone ---'  remount: callers get ECONNABORTED
 *   running --hangs (unresponsiveMaxMs)--> killed, so it dies      a successor not ready in time is killed too
 *   running --stop--> unmount --> ask agent to stop --(drainTimeoutMs: kill)--> stopped
 */
export class Supervisor implements Service {
  readonly name = 'guest-agent-supervisor';
  readonly #options: SupervisorOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #stopping = new AbortController();
  #state: SupervisorStatus['state'] = 'stopped';
  #mount: FuseMount | undefined;
  #agent: AgentProcess | undefined;
  #watch: AgentWatch | undefined;
  #cancelReadyTimeout: Cancel = () => {};
  #negotiation: Negotiation | undefined;
  #needsRemount = false;
  /** Agents that this connection has had, the present one included. */
  #incarnations = 0;
  #restarts = 0;
  #agentStartedAtUs = 0;
  #failuresInRow = 0;
  #readyAtMs: number | undefined;
  #onReady: (() => void) | undefined;
  #supervision: Promise<void> | undefined;

  constructor(
    deps: { readonly clock: Clock; readonly random: Random; readonly log: Log },
    options: SupervisorOptions,
  ) {
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#log = deps.log;
    this.#options = options;
  }

  get status(): SupervisorStatus {
    return {
      state: this.#state,
      mountPath: this.#mount?.path ?? null,
      isPrivate: this.#mount?.isPrivate ?? false,
      agentProcessId: this.#agent?.processId ?? null,
      agentStartedAtUs: this.#agentStartedAtUs,
      restarts: this.#restarts,
    };
  }

  /** Mounts and resolves when the first agent serves. Throws MountError, or SupervisorError `agent-not-ready`. */
  async start(): Promise<void> {
    this.#state = 'starting';
    try {
      this.#mount = await mountFuse(this.#options.mountPath, { clock: this.#clock });
      this.#stopping.signal.throwIfAborted();
      await this.#startFirstAgent(this.#mount);
    } catch (error) {
      await this.#release('stopped');
      throw error;
    }
  }

  /**
   * Resolves when supervision has ended by `stop`; rejects with SupervisorError `agent-failing`, or with the MountError
   * of a remount, after the mount was taken away so that nobody waits for an agent that never comes.
   */
  async finished(): Promise<void> {
    await this.#supervision;
  }

  /**
   * Unmounts and lets the agent drain; nothing is left behind. Throws MountError when the mount can't be taken away; the
   * agent is ended all the same.
   */
  async stop(): Promise<void> {
    if (this.#state === 'stopped' || this.#state === 'failed') return;
    const hasAgent = this.#state === 'running';
    this.#beginStop();
    try {
      // Without an agent callers inside the mount would never leave it.
      if (hasAgent) await this.#mount?.unmount();
      else await this.#mount?.unmountNow();
    } finally {
      await this.#agentGone();
      await this.#supervisionEnded();
      await this.#release('stopped');
    }
  }

  /** The same without waiting for anyone: the agent is killed, the mount detached. What was acknowledged is safe. */
  async stopNow(): Promise<void> {
    this.#beginStop();
    this.#agent?.kill();
    await this.#supervisionEnded();
    await this.#release('stopped');
  }

  /** A stop may meet a remount half-way: what that has mounted is there to be released when this resolves. */
  async #supervisionEnded(): Promise<void> {
    await this.#supervision?.catch(() => {
      // Logged where it happened, and `finished` rejects with it.
    });
  }

  #beginStop(): void {
    this.#state = 'stopping';
    this.#stopping.abort();
    this.#unwatch();
  }

  async #startFirstAgent(mount: FuseMount): Promise<void> {
    const ready = new Promise<'ready'>((resolve) => {
      this.#onReady = () => {
        resolve('ready');
      };
    });
    const agent = this.#spawn(mount);
    const timer = new AbortController();
    const timedOut = this.#clock
      .sleep(this.#options.readyTimeoutMs, timer.signal)
      .then(() => 'timeout' as const);
    timedOut.catch(() => {
      // Cancelled below: the race is over by then.
    });
    const outcome = await Promise.race([ready, agent.exited, timedOut]);
    timer.abort();
    if (outcome !== 'ready') {
      agent.kill();
      throw notReady(outcome, this.#options.readyTimeoutMs);
    }
    this.#supervision = this.#supervise(agent);
    // Whoever wants to know calls `finished`; an end that nobody asks about is in the log.
    this.#supervision.catch(() => {
      // Logged where it happened.
    });
  }

  async #supervise(first: AgentProcess): Promise<void> {
    for (let agent = first; ;) {
      const exit = await agent.exited;
      this.#unwatch();
      if (this.#stopping.signal.aborted) return;
      const next = await this.#replace(exit);
      if (next === undefined) return;
      agent = next;
    }
  }

  async #replace(exit: AgentExit): Promise<AgentProcess | undefined> {
    this.#state = 'restarting';
    const wasStable =
      this.#readyAtMs !== undefined && this.#clock.monotonicMs() - this.#readyAtMs >= stableMs;
    this.#failuresInRow = wasStable ? 1 : this.#failuresInRow + 1;
    this.#readyAtMs = undefined;
    this.#log.warn('agent-died', { ...exit, failuresInRow: this.#failuresInRow });
    try {
      this.#refuseHopeless(exit);
      if (!(await this.#backOff())) return undefined;
      const mount = await this.#connection();
      if (this.#stopping.signal.aborted) return undefined;
      this.#restarts += 1;
      const next = this.#spawn(mount);
      this.#cancelReadyTimeout = this.#clock.after(this.#options.readyTimeoutMs, () => {
        this.#end(next, 'agent-not-ready', { readyTimeoutMs: this.#options.readyTimeoutMs });
      });
      return next;
    } catch (error) {
      this.#log.error('supervision-failed', { error });
      await this.#release('failed');
      throw error;
    }
  }

  #refuseHopeless(exit: AgentExit): void {
    const { attemptsMax } = restartPolicy;
    if (exit.exitCode !== configurationExitCode && this.#failuresInRow < attemptsMax) return;
    throw new SupervisorError(
      'agent-failing',
      exit.exitCode === configurationExitCode
        ? 'the guest agent refuses its configuration; its log says why'
        : `the guest agent failed ${attemptsMax} times in a row; its log says why`,
      {
        needsSetup: exit.exitCode === configurationExitCode,
        context: { exitCode: exit.exitCode, failuresInRow: this.#failuresInRow },
      },
    );
  }

  /** False when supervision stops meanwhile. */
  async #backOff(): Promise<boolean> {
    if (this.#failuresInRow <= 1) return true;
    const delayMs = backoffDelayMs(restartPolicy, this.#failuresInRow - 2, this.#random);
    await this.#clock.sleep(delayMs, this.#stopping.signal).catch(() => {
      // Aborted by a stop, which the next line tells.
    });
    return !this.#stopping.signal.aborted;
  }

  /** The connection for the next agent: the same where the kernel can resend, else a new mount at the same place. */
  async #connection(): Promise<FuseMount> {
    const canResend = ((this.#negotiation?.flags2 ?? 0) & initFlag2.resend) !== 0;
    const isExhausted = this.#incarnations >= incarnationsMax;
    if (this.#mount !== undefined && canResend && !this.#needsRemount && !isExhausted) {
      return this.#mount;
    }
    await this.#mount?.unmountNow();
    this.#mount = undefined;
    this.#negotiation = undefined;
    this.#needsRemount = false;
    this.#incarnations = 0;
    this.#mount = await mountFuse(
      this.#options.mountPath,
      { clock: this.#clock },
      { mayHideContent: true },
    );
    this.#log.warn('remounted', { mountPath: this.#mount.path });
    return this.#mount;
  }

  #spawn(mount: FuseMount): AgentProcess {
    const incarnation = this.#incarnations;
    this.#incarnations += 1;
    this.#agentStartedAtUs = this.#clock.wallUs();
    const agent = new AgentProcess(mount, {
      entry: this.#options.entry,
      args: this.#options.args,
      takeover:
        this.#negotiation === undefined ? null : { negotiation: this.#negotiation, incarnation },
      onMessage: (message) => {
        if (this.#agent === agent) this.#take(message);
      },
      log: this.#log,
      takeOutput: this.#options.takeOutput,
    });
    this.#agent = agent;
    this.#log.info('agent-started', { processId: agent.processId, incarnation });
    return agent;
  }

  /** A live agent begins to be watched when it is ready; its ready time is over then. */
  #watchAgent(): void {
    const agent = this.#agent;
    if (agent === undefined || this.#stopping.signal.aborted) return;
    const { unresponsiveMaxMs } = this.#options;
    this.#unwatch();
    this.#watch = new AgentWatch(
      { clock: this.#clock },
      {
        unresponsiveMaxMs,
        ask: () => {
          agent.ping();
        },
        onHung: () => {
          this.#end(agent, 'agent-unresponsive', { unresponsiveMaxMs });
        },
      },
    );
    this.#watch.start();
  }

  #unwatch(): void {
    this.#cancelReadyTimeout();
    this.#watch?.stop();
    this.#watch = undefined;
  }

  /** Its death is mended as any other. */
  #end(agent: AgentProcess, event: string, fields: Readonly<Record<string, number>>): void {
    this.#log.error(event, { processId: agent.processId, ...fields });
    agent.kill();
  }

  #take(message: ToSupervisor): void {
    switch (message.type) {
      case 'negotiated':
        this.#negotiation = message.negotiation;
        return;
      case 'ready':
        if (!this.#stopping.signal.aborted) this.#state = 'running';
        this.#readyAtMs = this.#clock.monotonicMs();
        this.#watchAgent();
        this.#onReady?.();
        return;
      case 'pong':
        this.#watch?.answered();
        return;
      case 'ended':
        this.#needsRemount = true;
        // The agent's connection is gone for good; its successor gets a new one.
        if (!this.#stopping.signal.aborted) this.#agent?.askToStop();
    }
  }

  async #agentGone(): Promise<void> {
    const agent = this.#agent;
    if (agent === undefined) return;
    agent.askToStop();
    const cancel = this.#clock.after(this.#options.drainTimeoutMs, () => {
      this.#log.error('agent-killed', { drainTimeoutMs: this.#options.drainTimeoutMs });
      agent.kill();
    });
    await agent.exited;
    cancel();
  }

  async #release(state: 'stopped' | 'failed'): Promise<void> {
    this.#agent?.kill();
    try {
      await this.#mount?.unmountNow();
    } finally {
      await this.#agent?.exited;
      this.#mount = undefined;
      this.#agent = undefined;
      this.#state = state;
    }
  }
}

function notReady(outcome: AgentExit | 'timeout', readyTimeoutMs: number): SupervisorError {
  if (outcome === 'timeout') {
    return new SupervisorError(
      'agent-not-ready',
      `the guest agent was not ready within ${readyTimeoutMs} ms; its log says why`,
      { context: { readyTimeoutMs } },
    );
  }
  const how = outcome.error?.message ?? `exit code ${outcome.exitCode}, signal ${outcome.signal}`;
  return new SupervisorError(
    'agent-not-ready',
    `the guest agent ended before it was ready (${how}); its log says why`,
    {
      needsSetup: outcome.exitCode === configurationExitCode,
      context: { exitCode: outcome.exitCode, signal: outcome.signal },
      cause: outcome.error,
    },
  );
}
