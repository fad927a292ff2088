import type { Service } from '../../common/runtime/service.ts';
import type { ChildStatus } from './child-process-service.ts';
import type { MountProcessPart } from './process-part.ts';

/** What `isobar up` needs of the supervisor that holds the mount and runs the agent behind it. */
export interface MountSupervisor extends Service {
  readonly status: {
    readonly agentProcessId: number | null;
    readonly agentStartedAtUs: number;
    readonly restarts: number;
    /** Only the mounting user sees into the mount. */
    readonly isPrivate: boolean;
  };
  /** Rejects when agents can't be kept running. */
  finished(): Promise<void>;
  stopNow(): Promise<void>;
}

/** The supervised guest agent as one of the processes of `isobar up`. */
export class MountPart implements MountProcessPart {
  readonly name = 'guest-agent';
  readonly #supervisor: MountSupervisor;

  constructor(supervisor: MountSupervisor) {
    this.#supervisor = supervisor;
  }

  get isPrivate(): boolean {
    return this.#supervisor.status.isPrivate;
  }

  async start(): Promise<void> {
    await this.#supervisor.start();
  }

  stop(): Promise<void> {
    return this.#supervisor.stop();
  }

  stopNow(): Promise<void> {
    return this.#supervisor.stopNow();
  }

  finished(): Promise<void> {
    return this.#supervisor.finished();
  }

  status(): ChildStatus {
    const { agentProcessId, agentStartedAtUs, restarts } = this.#supervisor.status;
    return {
      name: this.name,
      pid: agentProcessId,
      startedAtUs: agentStartedAtUs,
      restartCount: restarts,
    };
  }
}
