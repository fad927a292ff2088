/**
 * A part with a life cycle. Constructors only assign; `start` resolves when the part accepts work;
 * `stop` is idempotent, stops intake, drains, and releases in reverse order.
 *
 *   constructed --start()--> running --stop()--> stopped
 *                    \--(start throws)--------------^
 */
export interface Service {
  readonly name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts services in the order given (sink first, source last) and stops them in reverse. A failing
 * start stops what had started and throws the cause; a failing stop does not keep the others from stopping,
 * and all failures are thrown together as an AggregateError.
 */
export class ServiceGroup implements Service {
  readonly name: string;
  readonly #services: readonly Service[];
  #startedCount = 0;

  constructor(name: string, services: readonly Service[]) {
    this.name = name;
    this.#services = services;
  }

  async start(): Promise<void> {
    for (const service of this.#services) {
      try {
        await service.start();
      } catch (cause) {
        await this.stop();
        throw cause;
      }
      this.#startedCount += 1;
    }
  }

  async stop(): Promise<void> {
    const failures: unknown[] = [];
    while (this.#startedCount > 0) {
      this.#startedCount -= 1;
      const service = this.#services[this.#startedCount];
      try {
        await service?.stop();
      } catch (failure) {
        failures.push(failure);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, `${this.name}: stopping failed`);
  }
}
