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
  test('whenever triggers are registered, every row that is published after it is announced', async () => {
    const step = fc.oneof(
      { weight: 9, arbitrary: stepArbitrary },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('register' as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        using store = new StoreFixture({ publishHoldMs: 20, newNameHoldMs: 8, overtakeGraceMs: 3 });
        const { engine } = store;
        const reader = new StoreReader(store.directory.path);
        let announcedRowId: number | undefined;
        const check = (): void => {
          engine.tick();
          for (const event of engine.takeEvents()) {
            if (event.kind !== 'published' || announcedRowId === undefined) continue;
            const limits = { rowsMax: 1_000, bytesMax: 1_000_000 };
            const { area, throughRowId, tables } = event;
            const range = { area, afterRowId: announcedRowId, throughRowId, ...limits };
            const published = reader.fetch(range).rows.map(({ table }) => table);
            // One more is a hint too many: its row was replaced before it was published.
            expect(tables).toEqual(expect.arrayContaining(published));
            announcedRowId = throughRowId;
          }
        };
        for (const [number, each] of steps.entries()) {
          if (each.kind === 'wait') await store.clock.advance(each.durationMs);
          else if (each.kind === 'release') {
            engine.apply([{ kind: 'publish', token: null, handle: each.handle }]);
          } else if (each.kind === 'register') {
            engine.watch('unencrypted', ['**']);
            announcedRowId ??= engine.frontier('unencrypted');
          } else {
            const { publishes, holdsNewName } = each;
            const over = { handle: each.handle, file: each.handle, publishes, holdsNewName };
            engine.apply([saveOf(`k${each.handle}`, String(number), over)]);
          }
          check();
        }
        await store.clock.advance(1_000);
        check();
        reader.close();
      }),
      { numRuns: 60 },
    );
  });

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
