import { OperatingError } from '../common/runtime/operating-error.ts';
import type { ProcessDependencies } from '../common/runtime/run-process.ts';
import type { Service } from '../common/runtime/service.ts';
import type { GuestAgentConfig } from './config.ts';
import { GuestAgent } from './guest-agent.ts';
import { AgentLink } from './supervisor/agent-link.ts';
import type { ServeMessage } from './supervisor/messages.ts';

/** The supervisor speaks as soon as it has started this process. */
const assignmentMaxMs = 5_000;

/** Started by hand: there is no mount to serve. */
export class UnsupervisedError extends OperatingError<'no-supervisor'> {
  override readonly name = 'UnsupervisedError';

  constructor() {
    super('no-supervisor', 'this process needs a supervisor: start it with `isobar guest run`');
  }
}

/** The agent as its supervisor's child: waits for its assignment, serves it, says when it does. */
export class SupervisedAgent implements Service {
  readonly name = 'guest-agent';
  readonly #config: GuestAgentConfig;
  readonly #deps: ProcessDependencies;
  readonly #link: AgentLink;
  #agent: GuestAgent | undefined;

  constructor(config: GuestAgentConfig, deps: ProcessDependencies) {
    this.#config = config;
    this.#deps = deps;
    this.#link = new AgentLink(process, deps);
  }

  /** Throws UnsupervisedError when no supervisor assigns a mount. */
  async start(): Promise<void> {
    const assignment = await this.#assignment();
    const link = this.#link;
    this.#agent = new GuestAgent(this.#config, assignment, { ...this.#deps, link });
    await this.#agent.start();
    link.ready();
  }

  async stop(): Promise<void> {
    await this.#agent?.stop();
    this.#link.close();
  }

  async #assignment(): Promise<ServeMessage> {
    const { clock, requestStop } = this.#deps;
    return new Promise((resolve, reject) => {
      const cancel = clock.after(assignmentMaxMs, () => {
        reject(new UnsupervisedError());
      });
      if (!process.connected) reject(new UnsupervisedError());
      this.#link.listen({
        serve: (message) => {
          cancel();
          resolve(message);
        },
        stop: requestStop,
        isResponsive: () => this.#agent?.isResponsive() ?? true,
      });
    });
  }
}
