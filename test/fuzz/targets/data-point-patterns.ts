import assert from 'node:assert';

import {
  compileDataPointPattern,
  parseDataPoint,
  patternProblem,
  patternReaches,
  quantityProblem,
} from '../../../common/wire/data-point.ts';
import { compileTableFilters } from '../../../guest-agent/channel/table-filter.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

/** Of a pattern in a descriptor, a query and a registration. */
const patternCharsMax = 1_024;
const pieces = [
  '*',
  '*',
  '**',
  '/',
  '/',
  'a',
  'a',
  'kpi',
  'infra',
  'encrypted',
  '%2F',
  '(',
  '.',
  'é',
];
const samples = [
  'kpi/**\nkpi/users/column1',
  'encrypted/*\nencrypted/a',
  'infra/*/*_bytes\ninfra/disk/read_bytes',
  '**/x/**\na/x/b',
  'db/*.csv\ndb/a.csv',
].map((text) => Buffer.from(text));

/** A pattern on the first line, from whoever writes a descriptor, queries or registers; behind it what it is held against. */
export const dataPointPatterns: FuzzTarget = {
  name: 'data-point-patterns',
  dictionary: pieces,
  start: () =>
    Promise.resolve({
      samples,
      generate: (random: FuzzRandom) => {
        const text = (count: number): string =>
          Array.from({ length: random.below(count) }, () => random.pick(pieces)).join('');
        return Buffer.from(`${text(400)}\n${text(2_000)}`);
      },
      run: match,
      checkStillWorks: () => {
        assert(compileDataPointPattern('kpi/*/col*1')('kpi/users/column1'));
        assert(!compileDataPointPattern('kpi/*/col*2')('kpi/users/column1'));
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};

function match(input: Uint8Array): void {
  const [line = '', ...rest] = Buffer.from(input).toString().split('\n');
  const pattern = line.slice(0, patternCharsMax);
  const text = rest.join('\n');
  const isMatch = compileDataPointPattern(pattern)(text);
  // Every way to say that something is meant has to agree.
  if (pattern === text && !pattern.includes('*')) assert(isMatch);
  const dataPoint = parseDataPoint(text);
  const kind = (['kpi', 'encrypted', 'infra'] as const).find((each) => text.startsWith(each));
  if (isMatch && dataPoint !== undefined && kind !== undefined) {
    assert(patternReaches(pattern, kind), 'what matches is in reach');
  }
  patternProblem(pattern);
  quantityProblem(pattern);
  const filter = compileTableFilters([{ area: 'unencrypted', tables: pattern }]).unencrypted;
  assert.equal(filter?.(text), isMatch);
}
