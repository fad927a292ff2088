import type { Log } from '../../common/runtime/log.ts';
import type { SessionEnd } from '../fuse/dev-fuse/dev-fuse-session.ts';
import { detach } from '../fuse/mount/unmount.ts';
import type { Negotiation } from '../fuse/protocol/init.ts';
import { type ServeMessage, toAgentSchema, type ToSupervisor } from './messages.ts';

/** The end of the IPC channel in a child process: what `process` offers when it was started with one. */
export interface IpcProcess {
  on(event: 'message', listener: (message: unknown) => void): unknown;
  on(event: 'disconnect', listener: () => void): unknown;
  /** Undefined without a channel. */
  disconnect?(): void;
  readonly send?: ((message: ToSupervisor) => boolean) | undefined;
  readonly connected: boolean;
}

/** Why the agent has to stop. */
export type StopReason = 'asked' | 'supervisor-died';

/**
 * The agent's side of its supervisor: says what to serve, and reports what the supervisor must know to replace this
 * agent by another. When the supervisor dies it unmounts, so that nobody waits for a mount without an agent.
 */
export class AgentLink {
  readonly #process: IpcProcess;
  readonly #log: Log;
  #mountPath: string | undefined;
  #isClosed = false;

  constructor(ipcProcess: IpcProcess, deps: { readonly log: Log }) {
    this.#process = ipcProcess;
    this.#log = deps.log;
  }

  /**
   * Calls `serve` once, and `stop` when asked to stop or left alone. Pings are answered unless `isResponsive` says no: without
   * answers the supervisor ends this process. Messages of another form are logged and left.
   */
  listen(handlers: {
    readonly serve: (message: ServeMessage) => void;
    readonly stop: (reason: StopReason) => void;
    readonly isResponsive?: () => boolean;
  }): void {
    this.#process.on('message', (message) => {
      const parsed = toAgentSchema.safeParse(message);
      if (!parsed.success) {
        this.#log.warn('supervisor-message-invalid', { issues: parsed.error.issues });
        return;
      }
      switch (parsed.data.type) {
        case 'stop':
          handlers.stop('asked');
          return;
        case 'ping':
          if (handlers.isResponsive?.() !== false) this.#send({ type: 'pong' });
          return;
        case 'serve':
          this.#mountPath = parsed.data.mountPath;
          handlers.serve(parsed.data);
      }
    });
    this.#process.on('disconnect', () => {
      if (this.#isClosed) return;
      void this.#leftAlone().finally(() => {
        handlers.stop('supervisor-died');
      });
    });
  }

  negotiated(negotiation: Negotiation): void {
    this.#send({ type: 'negotiated', negotiation });
  }

  ready(): void {
    this.#send({ type: 'ready' });
  }

  ended(end: SessionEnd): void {
    this.#send({ type: 'ended', end });
  }

  /** Lets go of the channel, which would keep the process alive; the last thing an agent does. */
  close(): void {
    this.#isClosed = true;
    // Not inside a message's handler: Node 20 fails there while it hands over messages that came before the listener.
    setImmediate(() => {
      if (this.#process.connected) this.#process.disconnect?.();
    });
  }

  #send(message: ToSupervisor): void {
    if (this.#process.connected) this.#process.send?.(message);
  }

  async #leftAlone(): Promise<void> {
    this.#log.error('supervisor-died', { mountPath: this.#mountPath });
    if (this.#mountPath === undefined) return;
    try {
      await detach(this.#mountPath);
    } catch (error) {
      this.#log.error('unmount-failed', { mountPath: this.#mountPath, error });
    }
  }
}
