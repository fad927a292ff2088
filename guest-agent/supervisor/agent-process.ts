import { type ChildProcess, spawn } from 'node:child_process';

import type { Log } from '../../common/runtime/log.ts';
import type { FuseMount } from '../fuse/mount/fuse-mount.ts';
import {
  type ServeMessage,
  type ToAgent,
  type ToSupervisor,
  toSupervisorSchema,
} from './messages.ts';

/**
 * The main thread's objects live for one message or for ever: a small young generation (MiB) costs it nothing and spares
 * the VM memory. The other threads have limits of their own.
 */
const memoryFlags = ['--max-semi-space-size=2'];
/** glibc would keep freed memory apart for each of the agent's threads. */
const memoryEnvironment = { MALLOC_ARENA_MAX: '2' };
/** stdin, stdout, stderr, the IPC channel, and then ours. */
const descriptorInAgent = 4;

export interface AgentExit {
  /** null when a signal ended it, or when it could not be started. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly error?: Error;
}

/** One run of the agent: a child process that has inherited the mount's /dev/fuse. */
export class AgentProcess {
  readonly #child: ChildProcess;
  readonly exited: Promise<AgentExit>;

  constructor(
    mount: FuseMount,
    options: {
      /** A compiled file for this Node. */
      readonly entry: string;
      readonly args: readonly string[];
      readonly takeover: ServeMessage['takeover'];
      readonly onMessage: (message: ToSupervisor) => void;
      readonly log: Log;
      readonly takeOutput?: ((chunk: Buffer) => void) | undefined;
    },
  ) {
    const { inheritance } = mount;
    const node = [...process.execArgv, ...memoryFlags, options.entry, ...options.args];
    const { program, args } = inheritance.command(process.execPath, node, descriptorInAgent);
    const output = options.takeOutput === undefined ? 'inherit' : 'pipe';
    this.#child = spawn(program, args, {
      stdio: ['ignore', output, output, 'ipc', inheritance.stdio],
      // oxlint-disable-next-line node/no-process-env -- passed on as it is, not read
      env: { ...process.env, ...memoryEnvironment },
      // A process group of its own: Ctrl-C reaches the supervisor alone, which stops the agent in order.
      detached: true,
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (chunk: Buffer) => options.takeOutput?.(chunk));
    }
    this.exited = new Promise((resolve) => {
      this.#child.on('error', (error) => {
        resolve({ exitCode: null, signal: null, error });
      });
      this.#child.on('exit', (exitCode, signal) => {
        resolve({ exitCode, signal });
      });
    });
    this.#child.on('message', (message) => {
      const parsed = toSupervisorSchema.safeParse(message);
      if (parsed.success) options.onMessage(parsed.data);
      else options.log.warn('agent-message-invalid', { issues: parsed.error.issues });
    });
    this.#send({
      type: 'serve',
      descriptor: descriptorInAgent,
      mountPath: mount.path,
      takeover: options.takeover,
    });
  }

  get processId(): number | undefined {
    return this.#child.pid;
  }

  /** Asks for a sign of life: a `pong`. */
  ping(): void {
    this.#send({ type: 'ping' });
  }

  askToStop(): void {
    this.#send({ type: 'stop' });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #send(message: ToAgent): void {
    // An agent that died meanwhile is reported by `exited`.
    if (this.#child.connected) this.#child.send(message, () => {});
  }
}
