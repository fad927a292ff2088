import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { ClockStep } from '../../../common/channel/message.ts';
import { ClockOffset, type ClockExchange } from '../../../host-collector/guests/clock-offset.ts';

const driftPpmMax = 200;
const secondUs = 1_000_000;

/** A guest's clock as a function of the host's time, and exchanges over a network with these delays. */
function exchangeAt(
  hostUs: number,
  guestClock: (hostUs: number) => number,
  outwardUs: number,
  returnUs: number,
): ClockExchange {
  return {
    hostSentUs: hostUs,
    guestReceivedUs: Math.floor(guestClock(hostUs + outwardUs)),
    guestSentUs: Math.floor(guestClock(hostUs + outwardUs + 10)),
    hostReceivedUs: hostUs + outwardUs + 10 + returnUs,
  };
}

const delays = fc.record({ outwardUs: fc.nat(20_000), returnUs: fc.nat(20_000) });

function step(before: number, after: number, more: Partial<ClockStep> = {}): ClockStep {
  return {
    kind: 'clock-step',
    cause: 'stepped',
    bootId: 'boot-1',
    bootTimeUs: 0,
    wallBeforeUs: before,
    wallAfterUs: after,
    noticedWithinUs: 500_000,
    ...more,
  };
}

const fiveSecondsAhead = (hostUs: number): number => hostUs + 5 * secondUs;
const anHourAhead = (hostUs: number): number => hostUs + 3_600 * secondUs;
const exact = (hostUs: number): number => hostUs;

describe('ClockOffset', () => {
  test('the true time lies within the uncertainty, for any offset, drift and asymmetric delays', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -1e12, max: 1e12 }),
        fc.integer({ min: -driftPpmMax + 5, max: driftPpmMax - 5 }),
        fc.array(delays, { minLength: 1, maxLength: 40 }),
        fc.integer({ min: -300 * secondUs, max: 300 * secondUs }),
        (offsetUs, driftPpm, exchanges, askedUs) => {
          const guestClock = (hostUs: number): number =>
            hostUs + offsetUs + (hostUs * driftPpm) / 1_000_000;
          const offset = new ClockOffset({ driftPpmMax });
          for (const [index, { outwardUs, returnUs }] of exchanges.entries()) {
            offset.exchanged(exchangeAt(index * 2 * secondUs, guestClock, outwardUs, returnUs));
          }
          const corrected = offset.correct(guestClock(askedUs))!;
          expect(Math.abs(corrected.timeUs - askedUs)).toBeLessThanOrEqual(
            corrected.uncertaintyUs + 2,
          );
        },
      ),
    );
  });

  test('a later save never gets an earlier time: rows keep their order though a better exchange moves the offset', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ delay: delays, gapUs: fc.nat(3_000) }), { minLength: 2 }),
        (steps) => {
          const offset = new ClockOffset({ driftPpmMax });
          let hostUs = 0;
          let before = -Infinity;
          for (const { delay, gapUs } of steps) {
            offset.exchanged(exchangeAt(hostUs, fiveSecondsAhead, delay.outwardUs, delay.returnUs));
            hostUs += gapUs;
            const corrected = offset.correct(fiveSecondsAhead(hostUs))!;
            expect(corrected.timeUs).toBeGreaterThanOrEqual(before);
            expect(Math.abs(corrected.timeUs - hostUs)).toBeLessThanOrEqual(
              corrected.uncertaintyUs,
            );
            before = corrected.timeUs;
          }
        },
      ),
    );
  });

  test('a larger move is a clock that was set: times follow it', () => {
    const offset = new ClockOffset({ driftPpmMax });
    offset.exchanged(exchangeAt(0, exact, 0, 200_000));
    const early = offset.correct(1_000)!.timeUs;
    offset.exchanged(exchangeAt(2_000, exact, 10, 10));
    const late = offset.correct(2_000)!;
    expect(early - 2_000).toBeGreaterThan(50_000);
    expect(Math.abs(late.timeUs - 2_000)).toBeLessThanOrEqual(late.uncertaintyUs);
  });

  test('the uncertainty is half of the minimal round trip, grown with age by a stated drift rate', () => {
    const offset = new ClockOffset({ driftPpmMax });
    offset.exchanged(exchangeAt(0, fiveSecondsAhead, 100, 100));
    for (let index = 1; index <= 3; index += 1) {
      offset.exchanged(exchangeAt(index * secondUs, fiveSecondsAhead, 9_000, 9_000));
    }
    const atExchange = offset.correct(fiveSecondsAhead(105))!;
    expect(atExchange.timeUs).toBe(105);
    expect(atExchange.uncertaintyUs).toBeLessThanOrEqual(103);
    const threeSecondsLater = offset.correct(fiveSecondsAhead(105 + 3 * secondUs))!;
    expect(threeSecondsLater.uncertaintyUs).toBeGreaterThanOrEqual(100 + 3 * driftPpmMax);
    expect(threeSecondsLater.uncertaintyUs).toBeLessThanOrEqual(103 + 3 * driftPpmMax);
  });

  test('is unknown before the first exchange, and ignores impossible ones', () => {
    const offset = new ClockOffset();
    expect(offset.correct(1)).toBeUndefined();
    offset.exchanged({ hostSentUs: 0, guestReceivedUs: 0, guestSentUs: 50, hostReceivedUs: 40 });
    expect(offset.isKnown).toBe(false);
  });

  test('corrects with the offset in force at that time: a step splits the times before and after', () => {
    fc.assert(
      fc.property(fc.integer({ min: 10 * secondUs, max: 1_000 * secondUs }), (jumpUs) => {
        const stepHostUs = 20 * secondUs;
        const after = (hostUs: number): number => hostUs + jumpUs;
        const offset = new ClockOffset({ driftPpmMax });
        for (let at = 0; at < stepHostUs; at += 2 * secondUs) {
          offset.exchanged(exchangeAt(at, exact, 50, 50));
        }
        offset.stepped(step(exact(stepHostUs), after(stepHostUs)));
        // At once, before the next exchange: within what two clock readings can tell.
        const early = offset.correct(after(stepHostUs + 100))!;
        expect(Math.abs(early.timeUs - (stepHostUs + 100))).toBeLessThanOrEqual(
          early.uncertaintyUs,
        );
        expect(early.uncertaintyUs).toBeLessThan(5_000);
        offset.exchanged(exchangeAt(stepHostUs + 1_000, after, 50, 50));

        const old = offset.correct(exact(stepHostUs - secondUs))!;
        expect(Math.abs(old.timeUs - (stepHostUs - secondUs))).toBeLessThanOrEqual(
          old.uncertaintyUs,
        );
        const recent = offset.correct(after(stepHostUs + secondUs))!;
        expect(Math.abs(recent.timeUs - (stepHostUs + secondUs))).toBeLessThanOrEqual(
          recent.uncertaintyUs,
        );
        expect(recent.uncertaintyUs).toBeLessThan(1_000);
      }),
    );
  });

  test('a time that two eras claim gets an uncertainty that covers both', () => {
    const offset = new ClockOffset({ driftPpmMax });
    offset.exchanged(exchangeAt(0, anHourAhead, 50, 50));
    const stepUs = 10 * secondUs;
    offset.stepped(step(anHourAhead(stepUs), exact(stepUs)));
    offset.exchanged(exchangeAt(stepUs + 10, exact, 50, 50));
    const ambiguousUs = anHourAhead(stepUs - secondUs);
    const corrected = offset.correct(ambiguousUs)!;
    for (const truth of [stepUs - secondUs, ambiguousUs]) {
      expect(Math.abs(corrected.timeUs - truth)).toBeLessThanOrEqual(corrected.uncertaintyUs);
    }
  });

  test('an exchange that contradicts the others begins a new era though nobody told of a step', () => {
    const offset = new ClockOffset({ driftPpmMax });
    offset.exchanged(exchangeAt(0, (us) => us, 50, 50));
    offset.exchanged(exchangeAt(2 * secondUs, (us) => us + 60 * secondUs, 50, 50));
    const recent = offset.correct(70 * secondUs)!;
    expect(Math.abs(recent.timeUs - 10 * secondUs)).toBeLessThanOrEqual(recent.uncertaintyUs);
    expect(recent.uncertaintyUs).toBeLessThan(10_000);
  });

  test.each([-3_600, 3_600])(
    'a time of before or after a step of %i s that nobody told of lies within the uncertainty',
    (stepSeconds) => {
      const stepUs = stepSeconds * secondUs;
      const offset = new ClockOffset({ driftPpmMax });
      offset.exchanged(exchangeAt(1_000 * secondUs, exact, 50, 50));
      // The clock is set at 1010 s; the host asks again at 1020 s.
      offset.exchanged(exchangeAt(1_020 * secondUs, (us) => us + stepUs, 50, 50));
      for (const hostSeconds of [1_000.001, 1_009, 1_011, 1_019.999]) {
        const hostUs = hostSeconds * secondUs;
        const corrected = offset.correct(hostSeconds < 1_010 ? hostUs : hostUs + stepUs)!;
        expect(Math.abs(corrected.timeUs - hostUs)).toBeLessThanOrEqual(corrected.uncertaintyUs);
      }
    },
  );

  test('is reset by another boot: nothing older counts for what comes', () => {
    const offset = new ClockOffset({ driftPpmMax });
    offset.bootObserved('boot-1');
    offset.exchanged(exchangeAt(0, (us) => us, 50, 50));
    offset.bootObserved('boot-1');
    expect(offset.isKnown).toBe(true);
    offset.bootObserved('boot-2');
    expect(offset.isKnown).toBe(false);
    offset.exchanged(exchangeAt(9 * secondUs, (us) => us + secondUs, 50, 50));
    expect(offset.isKnown).toBe(true);
    const later = offset.correct(12 * secondUs)!;
    expect(Math.abs(later.timeUs - 11 * secondUs)).toBeLessThanOrEqual(later.uncertaintyUs);
    expect(later.uncertaintyUs).toBeLessThan(2_000);
  });

  test('after sleep the offset is kept with an uncertainty until it is measured', () => {
    const offset = new ClockOffset({ driftPpmMax });
    offset.exchanged(exchangeAt(0, (us) => us, 50, 50));
    const noticed = { cause: 'resumed', noticedWithinUs: 60 * secondUs } as const;
    offset.stepped(step(1_000, 60 * secondUs, noticed));
    const corrected = offset.correct(61 * secondUs)!;
    expect(Math.abs(corrected.timeUs - 61 * secondUs)).toBeLessThanOrEqual(corrected.uncertaintyUs);
    offset.exchanged(exchangeAt(62 * secondUs, (us) => us, 50, 50));
    expect(offset.correct(62 * secondUs)!.uncertaintyUs).toBeLessThan(500);
  });
});
