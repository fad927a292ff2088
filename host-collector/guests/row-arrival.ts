import type { Area } from '../../common/channel/area.ts';
import type { Cancel, Clock } from '../../common/runtime/clock.ts';

/** How a session learns that there may be rows to fetch (federated-interfaces IV-B: triggers, else polling). */
export interface RowArrival {
  /** Whether the guest is asked for notifications. */
  readonly wantsNotifications: boolean;
  /** Calls `fetch` whenever there may be rows, until cancelled. */
  start(fetch: () => void): Cancel;
  /** The guest says that `area` has rows; true to fetch them now. */
  announced(area: Area): boolean;
}

/** The guest's triggers tell. */
export class NotifiedArrival implements RowArrival {
  readonly wantsNotifications = true;

  start(): Cancel {
    return () => {};
  }

  announced(): boolean {
    return true;
  }
}

/** The host asks every `intervalMs`, whatever the guest says. */
export class PolledArrival implements RowArrival {
  readonly wantsNotifications = false;
  readonly #clock: Clock;
  readonly #intervalMs: number;

  constructor(deps: { readonly clock: Clock }, options: { readonly intervalMs: number }) {
    this.#clock = deps.clock;
    this.#intervalMs = options.intervalMs;
  }

  start(fetch: () => void): Cancel {
    return this.#clock.every(this.#intervalMs, fetch);
  }

  announced(): boolean {
    return false;
  }
}
