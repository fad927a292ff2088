/** What keeps failing on a channel that can be opened. */
export interface ChannelTrouble {
  /** When the first of a row of failures was. */
  readonly sinceUs: number;
  /** Why the latest one failed. */
  readonly reason: string;
  /** Failures in a row. */
  readonly failureCount: number;
}

/** A failure or two pass by themselves: an agent that is restarted, a locked database. */
export const failuresShownMin = 3;

/** Counts failures in a row, by what failed; success ends the row. */
export class TroubleKeeper {
  readonly #clock: { wallUs(): number };
  readonly #troubles = new Map<string, ChannelTrouble>();

  constructor(clock: { wallUs(): number }) {
    this.#clock = clock;
  }

  failed(what: string, reason: string): void {
    const known = this.#troubles.get(what);
    this.#troubles.set(what, {
      sinceUs: known?.sinceUs ?? this.#clock.wallUs(),
      reason,
      failureCount: (known?.failureCount ?? 0) + 1,
    });
  }

  succeeded(what: string): void {
    this.#troubles.delete(what);
  }

  /** The trouble that lasts longest, from {@link failuresShownMin} failures on. */
  get longest(): ChannelTrouble | null {
    const lasting = [...this.#troubles.values()].filter(
      ({ failureCount }) => failureCount >= failuresShownMin,
    );
    return lasting.toSorted((left, right) => left.sinceUs - right.sinceUs)[0] ?? null;
  }
}
