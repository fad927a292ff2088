import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { silentLog } from '../../../common/runtime/log.ts';
import { ReplayStore, type ReplayStoreOptions } from '../../../common/site-control/replay-store.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const skewMaxS = 30;

function openStore(
  directory: string,
  clock: ManualClock,
  options: Partial<ReplayStoreOptions> = {},
) {
  const store = new ReplayStore(
    { clock, log: silentLog },
    {
      path: join(directory, 'replays.db'),
      skewMaxS,
      noncesPerRelationMax: 100,
      bootId: 'boot-1',
      ...options,
    },
  );
  store.open();
  return {
    [Symbol.dispose]: () => {
      store.close();
    },
    nowS: () => Math.floor(clock.wallUs() / 1_000_000),
    /** A request signed `ageS` ago for a minute. */
    admit: (nonce: string, relation = 'a-b', ageS = 0) => {
      const createdS = Math.floor(clock.wallUs() / 1_000_000) - ageS;
      return store.admit(relation, { nonce, createdS, expiresS: createdS + 60 });
    },
  };
}

describe('ReplayStore', () => {
  test('a nonce is fresh once for each relation', () => {
    using directory = temporaryDirectory();
    using store = openStore(directory.path, new ManualClock());
    expect(store.admit('n1')).toBe('fresh');
    expect(store.admit('n1')).toBe('replayed');
    expect(store.admit('n1', 'a-c')).toBe('fresh');
  });

  test('a request to one process of a site is not fresh at another', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    using first = openStore(directory.path, clock);
    using second = openStore(directory.path, clock);
    expect(first.admit('n1')).toBe('fresh');
    expect(second.admit('n1')).toBe('replayed');
    expect(second.admit('n2')).toBe('fresh');
    expect(first.admit('n2')).toBe('replayed');
    // What one of them removed as expired stays refused at the other when the clock is set back.
    await clock.advance(200_000);
    expect(first.admit('n3')).toBe('fresh');
    clock.stepWall(-199_000_000);
    expect(second.admit('n1', 'a-b', 1)).toBe('expired');
  });

  test('a restart keeps replay protection for as long as requests are valid', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    {
      using store = openStore(directory.path, clock);
      expect(store.admit('n1')).toBe('fresh');
    }
    await clock.advance((60 + skewMaxS) * 1_000);
    using store = openStore(directory.path, clock);
    expect(store.admit('n1', 'a-b', 60 + skewMaxS)).toBe('replayed');
    expect(store.admit('n2')).toBe('fresh');
  });

  test('a clock that is set back does not make a forgotten request new', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    using store = openStore(directory.path, clock);
    const createdS = store.nowS();
    expect(store.admit('n1')).toBe('fresh');
    await clock.advance(200_000);
    expect(store.admit('n2')).toBe('fresh');
    clock.stepWall(-200_000_000);
    expect(store.nowS()).toBe(createdS);
    expect(store.admit('n1')).toBe('expired');
    await clock.advance(1_000);
    expect(store.admit('n3'), 'requests signed later are accepted').toBe('fresh');
  });

  test('a clock that was a day ahead for a moment costs no more than a minute', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    using store = openStore(directory.path, clock);
    expect(store.admit('n1')).toBe('fresh');
    clock.stepWall(86_400_000_000);
    expect(store.admit('n2')).toBe('fresh');
    clock.stepWall(-86_400_000_000);
    await clock.advance(61_000);
    expect(store.admit('n3')).toBe('fresh');
  });

  test('at the bound of a relation its requests are refused until some expire, and those of others are not', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    using store = openStore(directory.path, clock, { noncesPerRelationMax: 3 });
    for (const nonce of ['n1', 'n2', 'n3']) expect(store.admit(nonce)).toBe('fresh');
    expect(store.admit('n4')).toBe('full');
    expect(store.admit('n4', 'a-c')).toBe('fresh');
    await clock.advance(91_000);
    expect(store.admit('n5')).toBe('fresh');
    expect(store.admit('n1', 'a-b', 91), 'what was forgotten stays refused').toBe('expired');
  });

  test('after a power cut, what may have been accepted and forgotten is not accepted again', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    {
      using store = openStore(directory.path, clock);
      expect(store.admit('n1')).toBe('fresh');
    }
    await clock.advance(5_000);
    using store = openStore(directory.path, clock, { bootId: 'boot-2' });
    expect(store.admit('n2', 'a-b', 5)).toBe('uncertain');
    expect(store.admit('n2', 'a-b', -skewMaxS), 'signed by a clock that is ahead').toBe(
      'uncertain',
    );
    await clock.advance((skewMaxS + 1) * 1_000);
    expect(store.admit('n2')).toBe('fresh');
  });

  test('a boot at which the clock was a day ahead does not refuse for a day', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    openStore(directory.path, clock)[Symbol.dispose]();
    clock.stepWall(86_400_000_000);
    using store = openStore(directory.path, clock, { bootId: 'boot-2' });
    expect(store.admit('n1')).toBe('uncertain');
    clock.stepWall(-86_400_000_000);
    expect(store.admit('n1')).toBe('uncertain');
    await clock.advance((skewMaxS + 1) * 1_000);
    expect(store.admit('n1')).toBe('fresh');
  });

  test('a damaged file is set aside, and requests are refused until nothing old can be valid', async () => {
    using directory = temporaryDirectory();
    const clock = new ManualClock();
    writeFileSync(
      join(directory.path, 'replays.db'),
      'this is no database, whatever its name says'.repeat(20),
    );
    using store = openStore(directory.path, clock);
    expect(readdirSync(directory.path).filter((name) => name.includes('damaged'))).toHaveLength(1);
    expect(store.admit('n1')).toBe('uncertain');
    await clock.advance((skewMaxS + 1) * 1_000);
    expect(store.admit('n1')).toBe('fresh');
  });
});
