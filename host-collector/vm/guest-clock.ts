import type { GuestClockOffset } from './guest-listener.ts';

/** Offsets kept; rows older than the oldest use that one. */
const offsetsMax = 64;

export interface CorrectedTime {
  readonly timeUs: number;
  readonly uncertaintyUs: number;
}

/** Corrects the guest's times by the offset that was in force when the row was saved. */
export class GuestClock {
  /** Ascending by the guest time from which each is in force. */
  #offsets: readonly GuestClockOffset[] = [];

  add(offset: GuestClockOffset): void {
    const others = this.#offsets.filter(({ sinceGuestUs }) => sinceGuestUs !== offset.sinceGuestUs);
    this.#offsets = [...others, offset]
      .toSorted((left, right) => left.sinceGuestUs - right.sinceGuestUs)
      .slice(-offsetsMax);
  }

  /** Without any offset the guest's time stands, and nothing is said of its uncertainty. */
  correct(guestTimeUs: number): CorrectedTime {
    const offset =
      this.#offsets.findLast(({ sinceGuestUs }) => sinceGuestUs <= guestTimeUs) ?? this.#offsets[0];
    if (offset === undefined) return { timeUs: guestTimeUs, uncertaintyUs: 0 };
    return {
      timeUs: guestTimeUs + Math.round(offset.offsetUs),
      uncertaintyUs: Math.max(0, Math.round(offset.uncertaintyUs)),
    };
  }
}
