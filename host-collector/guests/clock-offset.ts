import type { ClockStep } from '../../common/channel/message.ts';

/** The four timestamps of one exchange (as in NTP, RFC 5905 section 8), and when it was on the host. */
export interface ClockExchange {
  readonly hostSentUs: number;
  readonly guestReceivedUs: number;
  readonly guestSentUs: number;
  readonly hostReceivedUs: number;
}

/** A guest's time as the host's, and half the width of the interval that the true one lies in. */
export interface CorrectedTime {
  readonly timeUs: number;
  readonly uncertaintyUs: number;
}

export interface ClockOffsetOptions {
  /**
   * How fast the guest's clock may run away from the host's, in millionths. 200 covers crystals (100) and NTP's usual
   * corrections; a faster slew shows as an exchange that contradicts the others, and begins a new era.
   */
  readonly driftPpmMax: number;
  /** Exchanges kept in an era; beyond it the oldest goes, and its time is corrected with more uncertainty. */
  readonly samplesMax: number;
  /** Eras kept; beyond it the oldest is forgotten. */
  readonly erasMax: number;
}

const defaults: ClockOffsetOptions = { driftPpmMax: 200, samplesMax: 256, erasMax: 16 };

interface Sample {
  readonly guestUs: number;
  /** Guest's clock minus host's. */
  readonly offsetUs: number;
  readonly uncertaintyUs: number;
}

/** A stretch of the guest's clock without a step: guest times that belong to it, and what is known of its offset. */
interface Era {
  readonly startUs: number;
  endUs: number;
  /** The guest's time at the newest exchange, kept as a sample or not. */
  newestUs: number;
  /** The host's time at it. */
  newestHostUs: number;
  readonly samples: Sample[];
}

/**
 * Corrects a guest's times with the offset that was in force at that time.
 *
 * Each exchange bounds the offset to half its round trip. Away from it the bound grows with `driftPpmMax`; the answer
 * is that of the exchange whose bound at the time asked for is the narrowest, so a quick exchange outlives slow ones
 * until drift has eaten its lead (a minimum filter). A step of the clock, a reboot, or an exchange that contradicts
 * what is known begins a new era. A time that two eras claim (the clock was set back) gets an uncertainty that
 * covers both. Pure: no clock of its own.
 */
export class ClockOffset {
  readonly #options: ClockOffsetOptions;
  readonly #eras: Era[] = [];
  #bootId: string | undefined;
  #hasRebooted = false;
  /** The latest guest time of the newest era that was corrected, and what became of it. */
  #latest: { readonly guestUs: number; readonly timeUs: number } | undefined;

  constructor(options: Partial<ClockOffsetOptions> = {}) {
    this.#options = { ...defaults, ...options };
  }

  /** True once the current era has an exchange or an estimate of its own. */
  get isKnown(): boolean {
    return !this.#hasRebooted && (this.#eras.at(-1)?.samples.length ?? 0) > 0;
  }

  /** After another boot nothing of the clock before it counts for what comes: the next exchange begins an era. */
  bootObserved(bootId: string): void {
    if (this.#bootId !== undefined && this.#bootId !== bootId) this.#hasRebooted = true;
    this.#bootId = bootId;
  }

  /** Takes an exchange; one with a negative round trip (a clock was set meanwhile) is ignored. */
  exchanged(exchange: ClockExchange): void {
    const { hostSentUs, guestReceivedUs, guestSentUs, hostReceivedUs } = exchange;
    const roundTripUs = hostReceivedUs - hostSentUs - (guestSentUs - guestReceivedUs);
    if (roundTripUs < 0) return;
    const sample: Sample = {
      guestUs: (guestReceivedUs + guestSentUs) / 2,
      offsetUs: (guestReceivedUs - hostSentUs + (guestSentUs - hostReceivedUs)) / 2,
      // Microseconds are rounded on both sides.
      uncertaintyUs: roundTripUs / 2 + 1,
    };
    const era = this.#eras.at(-1);
    if (era === undefined) {
      this.#begin(-Infinity, sample);
    } else if (this.#hasRebooted || this.#contradicts(era, sample)) {
      // The clock was set, nobody knows when: what either setting could show between the newest exchange and this one,
      // both eras claim.
      const betweenUs = this.#elapsedUs(era, sample);
      const newestUs = era.newestUs;
      era.endUs = Math.max(newestUs + betweenUs, sample.guestUs);
      this.#begin(Math.min(newestUs, sample.guestUs - betweenUs), sample);
    } else {
      this.#insert(era, sample);
    }
    this.#hasRebooted = false;
  }

  /** The guest's watcher saw a step (or sleep): a new era, whose offset follows from the old one's until it is measured. */
  stepped(step: ClockStep): void {
    this.#bootId = step.bootId;
    const era = this.#eras.at(-1);
    if (era === undefined) return;
    era.endUs = step.wallBeforeUs;
    const before = this.#estimate(era, step.wallBeforeUs);
    if (before === undefined) return;
    const jumpUs = step.wallAfterUs - step.wallBeforeUs;
    const isSleep = step.cause === 'resumed';
    // After sleep the guest's clock is right by a source that we do not know.
    this.#begin(step.wallAfterUs - step.noticedWithinUs, {
      guestUs: step.wallAfterUs,
      offsetUs: before.offsetUs + (isSleep ? 0 : jumpUs),
      uncertaintyUs: before.uncertaintyUs + (isSleep ? Math.abs(jumpUs) : stepReadingUs),
    });
  }

  /**
   * `guestTimeUs` on the host's clock; undefined before the first exchange. Within an era a later guest time never gets an
   * earlier one: rows keep the order of their saves though a better exchange has moved the offset in between, by
   * {@link heldBackMaxUs} at most. A larger move is a clock that was set, and times follow it.
   */
  correct(guestTimeUs: number): CorrectedTime | undefined {
    const corrected = this.#correct(guestTimeUs);
    if (corrected === undefined) return undefined;
    const latest = this.#latest;
    if (latest === undefined || guestTimeUs < latest.guestUs) {
      this.#latest ??= { guestUs: guestTimeUs, timeUs: corrected.timeUs };
      return corrected;
    }
    const aheadUs = Math.max(0, latest.timeUs - corrected.timeUs);
    const heldBackUs = aheadUs <= heldBackMaxUs ? aheadUs : 0;
    const timeUs = corrected.timeUs + heldBackUs;
    this.#latest = { guestUs: guestTimeUs, timeUs };
    return { timeUs, uncertaintyUs: corrected.uncertaintyUs + heldBackUs };
  }

  #correct(guestTimeUs: number): CorrectedTime | undefined {
    let lowUs = Infinity;
    let highUs = -Infinity;
    for (const era of this.#claiming(guestTimeUs)) {
      const estimate = this.#estimate(era, guestTimeUs);
      if (estimate === undefined) continue;
      const centreUs = guestTimeUs - estimate.offsetUs;
      lowUs = Math.min(lowUs, centreUs - estimate.uncertaintyUs);
      highUs = Math.max(highUs, centreUs + estimate.uncertaintyUs);
    }
    if (lowUs > highUs) return undefined;
    const timeUs = Math.round((lowUs + highUs) / 2);
    return { timeUs, uncertaintyUs: Math.ceil(Math.max(highUs - timeUs, timeUs - lowUs)) };
  }

  /** The eras that have this time; the nearest one for a time in the gap that a step forward left. */
  #claiming(guestUs: number): readonly Era[] {
    const known = this.#eras;
    const claiming = known.filter((era) => era.startUs <= guestUs && guestUs <= era.endUs);
    if (claiming.length > 0) return claiming;
    const distanceUs = (era: Era): number => Math.max(era.startUs - guestUs, guestUs - era.endUs);
    return known.toSorted((left, right) => distanceUs(left) - distanceUs(right)).slice(0, 1);
  }

  #estimate(era: Era, guestUs: number): Sample | undefined {
    let best: Sample | undefined;
    for (const sample of era.samples) {
      const uncertaintyUs = this.#uncertaintyAt(sample, guestUs);
      if (best === undefined || uncertaintyUs < best.uncertaintyUs) {
        best = { guestUs, offsetUs: sample.offsetUs, uncertaintyUs };
      }
    }
    return best;
  }

  #contradicts(era: Era, sample: Sample): boolean {
    const known = this.#estimate(era, sample.guestUs);
    if (known === undefined) return false;
    return Math.abs(known.offsetUs - sample.offsetUs) > known.uncertaintyUs + sample.uncertaintyUs;
  }

  /** Drops the samples that the new one is better than at every time, and the new one if an old one is. */
  #insert(era: Era, sample: Sample): void {
    era.newestUs = sample.guestUs;
    era.newestHostUs = sample.guestUs - sample.offsetUs;
    const isWorse = (one: Sample, other: Sample): boolean =>
      this.#uncertaintyAt(other, one.guestUs) <= one.uncertaintyUs;
    if (era.samples.some((kept) => isWorse(sample, kept))) return;
    const better = era.samples.filter((kept) => !isWorse(kept, sample));
    better.push(sample);
    era.samples.splice(0, Infinity, ...better.slice(-this.#options.samplesMax));
  }

  /** At most this much time of the guest lies between the newest exchange of `era` and `sample`. */
  #elapsedUs(era: Era, sample: Sample): number {
    const hostUs = Math.max(0, sample.guestUs - sample.offsetUs - era.newestHostUs);
    return hostUs * (1 + this.#options.driftPpmMax / 1_000_000) + 2 * sample.uncertaintyUs;
  }

  #uncertaintyAt(sample: Sample, guestUs: number): number {
    const ageUs = Math.abs(guestUs - sample.guestUs);
    return sample.uncertaintyUs + (ageUs * this.#options.driftPpmMax) / 1_000_000;
  }

  #begin(startUs: number, sample: Sample): void {
    const newestUs = sample.guestUs;
    const newestHostUs = newestUs - sample.offsetUs;
    this.#latest = undefined;
    this.#eras.push({ startUs, endUs: Infinity, newestUs, newestHostUs, samples: [sample] });
    if (this.#eras.length > this.#options.erasMax) this.#eras.shift();
  }
}

/** Twice the uncertainty of an exchange over a slow channel. */
const heldBackMaxUs = 50_000;

/** Two readings of a pair of clocks, each uncertain by up to 1.5 ms. */
const stepReadingUs = 3_000;
