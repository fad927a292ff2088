import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { StoreReader } from '../../../guest-agent/store/store-reader.ts';
import { saveOf, StoreFixture } from '../../support/store-fixture.ts';

const handle = fc.integer({ min: 1, max: 5 });
const stepArbitrary = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('save' as const),
      handle,
      publishes: fc.boolean(),
      holdsNewName: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('release' as const), handle }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      durationMs: fc.integer({ min: 0, max: 6 }),
    }),
  },
);

describe('held and published', () => {
  test('a row never becomes visible below a row_id that was already handed out', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(stepArbitrary, { maxLength: 80 }),
        fc.integer({ min: 0, max: 4 }),
        async (steps, overtakeGraceMs) => {
          using store = new StoreFixture({ overtakeGraceMs, publishHoldMs: 20, newNameHoldMs: 8 });
          const { engine } = store;
          const reader = new StoreReader(store.directory.path);
          const fetched: unknown[] = [];
          let cursor = 0;
          const fetch = (): void => {
            engine.tick();
            const result = reader.fetch({
              area: 'unencrypted',
              afterRowId: cursor,
              throughRowId: engine.frontier('unencrypted'),
              rowsMax: 1_000,
              bytesMax: 1_000_000,
            });
            fetched.push(...result.rows.map(({ values }) => values[0]));
            cursor = result.throughRowId;
          };
          for (const [number, step] of steps.entries()) {
            if (step.kind === 'wait') await store.clock.advance(step.durationMs);
            else if (step.kind === 'release') {
              engine.apply([{ kind: 'publish', token: null, handle: step.handle }]);
            } else {
              const path = `k${step.handle}`;
              const { publishes, holdsNewName } = step;
              const over = { handle: step.handle, file: step.handle, publishes, holdsNewName };
              engine.apply([saveOf(path, String(number), over)]);
            }
            fetch();
          }
          await store.clock.advance(1_000);
          fetch();
          fetch();
          const stored = reader
            .fetch({
              area: 'unencrypted',
              afterRowId: 0,
              throughRowId: Number.MAX_SAFE_INTEGER,
              rowsMax: 1_000,
              bytesMax: 1_000_000,
            })
            .rows.map(({ values }) => values[0]);
          reader.close();
          expect(fetched).toEqual(stored);
        },
      ),
      { numRuns: 40 },
    );
  });
});
