import assert from 'node:assert';

import { headerModes } from '../../../common/csv/csv-labels.ts';
import {
  emptyLogger,
  loggerState,
  rowsOfAppend,
  rowsOfSave,
} from '../../../common/csv/csv-rows.ts';
import { decodeCsv } from '../../../common/csv/parse-csv.ts';
import type { FuzzRandom } from '../fuzz-random.ts';
import type { FuzzTarget } from '../fuzz-target.ts';

/** What an agent takes by default. */
const limits = { columnsMax: 500, fieldCharactersMax: 65_536 };
const pieces = [
  ',',
  ',',
  '\n',
  '\n',
  '\r\n',
  '\r',
  '"',
  '""',
  ' ',
  '\t',
  '\uFEFF',
  '\u0000',
  'é',
  '😀',
  'a',
  'row_id',
  'saved_at_us',
  'column1',
  '007',
  '1e5',
  '-0',
  '+.5',
  '1.',
  '.',
  'e',
  '0x1',
  '9223372036854775807',
  '-9223372036854775809',
  ' '.repeat(5_000),
  '9'.repeat(5_000),
];
const samples = [
  '1,2\n',
  'cpu,mem\n0.5,17\n',
  'a,a\n1,2\n',
  '"x,y","a ""b"" c"\n1,2\n',
  'users\r\n42\r\n43\r\n',
  '\uFEFFt;u,v\n1;2,3',
  '\n\n',
  '',
].map((text) => Buffer.from(text));

/** What a file in the mount holds, saved at once and appended to. */
export const csv: FuzzTarget = {
  name: 'csv',
  dictionary: pieces,
  inputBytesMax: 262_144,
  start: () =>
    Promise.resolve({
      samples,
      generate: (random: FuzzRandom) =>
        Buffer.from(Array.from({ length: random.below(64) }, () => random.pick(pieces)).join('')),
      run: readCsv,
      checkStillWorks: () => {
        assert.deepEqual(rowsOfSave('a,b\n1,x\n', '', 'auto', limits), {
          isOk: true,
          result: [{ columns: ['a', 'b'], values: [1n, 'x'] }],
        });
        return Promise.resolve();
      },
      stop: () => Promise.resolve(),
    }),
};

function readCsv(input: Uint8Array): void {
  const decoded = decodeCsv(input);
  if (!decoded.isOk) return;
  const text = decoded.result;
  const seam = Math.floor(text.length / 2);
  for (const mode of headerModes) {
    const saved = rowsOfSave(text, text.slice(0, seam), mode, limits);
    const added = rowsOfAppend(text, emptyLogger, mode, limits);
    const state = loggerState(text.slice(0, seam), mode, limits);
    const appended = rowsOfAppend(text.slice(seam), state, mode, limits);
    const lists = [saved, added, appended].flatMap((each) => (each.isOk ? [each.result] : []));
    for (const list of lists) {
      for (const { columns, values } of 'rows' in list ? list.rows : list) {
        assert.equal(columns.length, values.length);
        assert(columns.length <= limits.columnsMax);
        assert.equal(new Set(columns).size, columns.length, 'labels repeat');
      }
    }
  }
}
