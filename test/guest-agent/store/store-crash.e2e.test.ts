import { spawnSync } from 'node:child_process';

import { describe, expect, test } from 'vitest';

import { compiledEntry } from '../../../common/runtime/package-root.ts';
import { type CrashPoint, crashPoints } from '../../../guest-agent/store/crash-point.ts';
import { StoreFixture } from '../../support/store-fixture.ts';

/** Runs the child until it kills itself; returns the saves that it acknowledged. */
function runUntilCrash(
  directory: string,
  crashPoint: CrashPoint | 'never',
  occurrence: number,
): { readonly acknowledged: readonly number[]; readonly signal: string | null } {
  const child = spawnSync(
    process.execPath,
    [compiledEntry('test/support/store-crash-child.ts'), directory, crashPoint, String(occurrence)],
    { encoding: 'utf8' },
  );
  return {
    acknowledged: child.stdout.split('\n').filter(Boolean).map(Number),
    signal: child.signal,
  };
}

/** When each point is reached with saves before and behind it; those of a start are reached once. */
const occurrences: Readonly<Record<CrashPoint, number>> = {
  'before-commit': 14,
  'after-commit': 14,
  'after-outcomes': 12,
  'after-identity-commit': 1,
  'before-held-commit': 1,
  'after-held-commit': 1,
  'before-overtake-commit': 3,
  'after-overtake-commit': 3,
};

describe('StoreEngine: kill -9', () => {
  test.each(crashPoints)(
    'at %s: no acknowledged save lost, none twice, held ones published at restart',
    (crashPoint) => {
      using store = new StoreFixture();
      const { acknowledged, signal } = runUntilCrash(
        store.options.directory,
        crashPoint,
        occurrences[crashPoint],
      );
      expect(signal).toBe('SIGKILL');
      const { engine } = store;
      const saved = acknowledged.length === 0 ? [] : store.rows('kpi');
      const numbers = saved.map(({ column1 }) => Number(column1));
      expect(new Set(numbers).size).toBe(numbers.length);
      expect(numbers).toEqual(expect.arrayContaining([...acknowledged]));
      // The one that was being answered may be there or not.
      expect(numbers.length - acknowledged.length).toBeLessThanOrEqual(1);
      expect(engine.frontier('unencrypted')).toBeGreaterThanOrEqual(
        Math.max(0, ...saved.map(({ row_id: rowId }) => Number(rowId))),
      );
    },
  );

  test.each(['before-held-commit', 'after-held-commit'] as const)(
    'at %s of the restart after a crash: saves that lay aside are published once',
    (crashPoint) => {
      using store = new StoreFixture();
      const first = runUntilCrash(store.options.directory, 'after-overtake-commit', 4);
      expect(first.signal).toBe('SIGKILL');
      // The second area's recovery is the second time that the point is reached.
      const second = runUntilCrash(store.options.directory, crashPoint, 2);
      expect(second).toEqual({ acknowledged: [], signal: 'SIGKILL' });
      expect(store.engine.frontier('unencrypted')).toBeGreaterThan(0);
      const numbers = store.rows('kpi').map(({ column1 }) => Number(column1));
      expect(numbers.toSorted((left, right) => left - right)).toEqual(first.acknowledged);
    },
  );
});
