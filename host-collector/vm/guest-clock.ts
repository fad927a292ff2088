export interface CorrectedTime {
  /** On the host's clock. */
  readonly timeUs: number;
  /** Half the width of the interval that the true time lies in. */
  readonly uncertaintyUs: number;
}

/** What is known of a guest's clock: corrects its times by the offset in force at that time. */
export interface GuestClock {
  /** undefined while nothing is known. */
  correct(guestTimeUs: number): CorrectedTime | undefined;
}

/** Before the first exchange the guest's time stands, and nothing is said of its uncertainty. */
export function correctTime(clock: GuestClock, guestTimeUs: number): CorrectedTime {
  const known = clock.correct(guestTimeUs);
  if (known === undefined) return { timeUs: guestTimeUs, uncertaintyUs: 0 };
  return {
    timeUs: Math.round(known.timeUs),
    uncertaintyUs: Math.max(0, Math.round(known.uncertaintyUs)),
  };
}

export const unknownClock: GuestClock = { correct: () => undefined };
