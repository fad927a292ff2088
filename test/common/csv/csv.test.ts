import * as fc from 'fast-check';
import * as Papa from 'papaparse';
import { describe, expect, test } from 'vitest';

import { columnLabels } from '../../../common/csv/csv-labels.ts';
import { emptyLogger, rowsOfAppend, rowsOfSave } from '../../../common/csv/csv-rows.ts';
import { csvValue } from '../../../common/csv/csv-value.ts';
import { encodeRecord } from '../../../common/csv/encode-csv.ts';
import { decodeCsv, parseCsv } from '../../../common/csv/parse-csv.ts';

const limits = { columnsMax: 10, fieldCharactersMax: 100 };

function records(text: string): readonly (readonly string[])[] | string {
  const outcome = parseCsv(text, limits);
  return outcome.isOk ? outcome.result : outcome.error.code;
}

function rows(text: string, previous = '', mode: 'auto' | 'always' | 'never' = 'auto'): unknown {
  const outcome = rowsOfSave(text, previous, mode, limits);
  if (!outcome.isOk) return outcome.error.code;
  return outcome.result.map(({ columns, values }) =>
    Object.fromEntries(columns.map((column, index) => [column, values[index]])),
  );
}

describe('parseCsv', () => {
  test.each([
    [
      'a,b\r\n1,2\r\n',
      [
        ['a', 'b'],
        ['1', '2'],
      ],
    ],
    ['a\rb', [['a'], ['b']]],
    ['1\n\n2\n\n', [['1'], ['2']]],
    ['"a,b","c""d","e\nf"', [['a,b', 'c"d', 'e\nf']]],
    ['"a" ,b', [['a', 'b']]],
    ['5" pipe,x"y"', [['5" pipe', 'x"y"']]],
    [',', [['', '']]],
    ['a,', [['a', '']]],
    ['"",""\n', [['', '']]],
    ['""', [['']]],
    ['\n\n', [['']]],
    ['1,2\n3\n', [['1', '2'], ['3']]],
    ['"open', 'unterminated-quote'],
    ['"a"b', 'text-after-quote'],
    ['1,2,3,4,5,6,7,8,9,10,11', 'too-many-columns'],
    ['x'.repeat(101), 'field-too-long'],
  ])('%j', (text, expected) => {
    expect(records(text)).toEqual(expected);
  });

  test('agrees with papaparse on everything that any writer of RFC 4180 produces', () => {
    const field = fc.string({
      unit: fc.constantFrom('a', '1', ',', '"', '\n', '\r', ' ', 'é'),
      maxLength: 6,
    });
    fc.assert(
      fc.property(
        fc.array(fc.array(field, { minLength: 2, maxLength: 5 }), { minLength: 1, maxLength: 5 }),
        fc.constantFrom('\n', '\r\n'),
        (table, newline) => {
          const text = table.map((record) => encodeRecord(record).slice(0, -1)).join(newline);
          const theirs = Papa.parse(text, { delimiter: ',', newline });
          expect(theirs.errors).toEqual([]);
          expect(records(text)).toEqual(theirs.data);
          expect(records(text)).toEqual(table);
        },
      ),
    );
  });

  test('the error names the line, and what is not text is refused', () => {
    const outcome = parseCsv('1\n2\n"3', limits);
    expect(outcome.isOk ? undefined : outcome.error).toEqual({
      code: 'unterminated-quote',
      line: 3,
      message: 'line 3: a quoted field has no end',
    });
    expect(decodeCsv(Buffer.from([0xff, 0xfe]))).toMatchObject({ error: { code: 'not-utf8' } });
    expect(decodeCsv(Buffer.from('1\n\0'))).toMatchObject({
      error: { code: 'nul-character', line: 2 },
    });
    expect(decodeCsv(Buffer.from('\uFEFF1'))).toEqual({ isOk: true, result: '1' });
  });
});

describe('csvValue: "Surrounding blanks, +5, .5, 5. are numbers; integers within 64 bits are exact"', () => {
  test.each([
    ['', null],
    ['0', 0n],
    ['42', 42n],
    [' 42\t', 42n],
    ['+5', 5n],
    ['-5', -5n],
    ['-0', 0n],
    ['.5', 0.5],
    ['5.', 5],
    ['-0.25', -0.25],
    ['1e3', 1_000],
    ['1.5E-3', 0.0015],
    ['9223372036854775807', 9_223_372_036_854_775_807n],
    ['-9223372036854775808', -9_223_372_036_854_775_808n],
    ['9223372036854775808', '9223372036854775808'],
    ['9'.repeat(1_000), '9'.repeat(1_000)],
    [`${' '.repeat(1_000)}7${'\t'.repeat(1_000)}`, 7n],
    ['1e400', '1e400'],
    ['007', '007'],
    ['00', '00'],
    ['0x10', '0x10'],
    ['NaN', 'NaN'],
    ['Infinity', 'Infinity'],
    ['1_000', '1_000'],
    ['1 2', '1 2'],
    ['.', '.'],
    ['+', '+'],
    ['e5', 'e5'],
    ['  ', '  '],
    ['١', '١'],
    ['٣', '٣'],
    ['\uFF11', '\uFF11'],
    ['+0', 0n],
    ['-7', -7n],
    ['+9223372036854775807', 9_223_372_036_854_775_807n],
    ['-9223372036854775809', '-9223372036854775809'],
    ['9223372036854775807.0', 2 ** 63],
    ['0.10', 0.1],
    ['-.5', -0.5],
    ['+.5', 0.5],
    ['-5.', -5],
    ['1e5', 100_000],
    ['1E+5', 100_000],
    ['5.e3', 5_000],
    ['0e0', 0],
    ['1e-400', 0],
    ['-1e400', '-1e400'],
    ['-007', '-007'],
    ['00.5', '00.5'],
    ['01e5', '01e5'],
    [' 007 ', ' 007 '],
    ['\t5\t', 5n],
    ['\u00A05\u00A0', '\u00A05\u00A0'],
    ['\v5', '\v5'],
    ['-', '-'],
    ['1e', '1e'],
    ['1e+', '1e+'],
    ['--5', '--5'],
    ['+ 5', '+ 5'],
    ['0b1', '0b1'],
    ['inf', 'inf'],
    ['true', 'true'],
    ['1;5', '1;5'],
    ['\t', '\t'],
  ])('%s is %s', (field, value) => {
    expect(csvValue(field)).toBe(value);
  });

  test('"Quoting does not change the type", and "empty is NULL", quoted or not', () => {
    expect(rows('"5","007","x",,"","  "')).toEqual([
      { column1: 5n, column2: '007', column3: 'x', column4: null, column5: null, column6: '  ' },
    ]);
  });

  test('every 64-bit integer comes back exactly', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (integer) => {
        expect(csvValue(String(integer))).toBe(integer);
      }),
    );
  });
});

describe('rowsOfSave', () => {
  test('"One line: column1..n"', () => {
    expect(rows('5,"6",x,\n')).toEqual([{ column1: 5n, column2: 6n, column3: 'x', column4: null }]);
  });

  test('"Exactly two lines in one plain save: labels and values"', () => {
    expect(rows('cpu, mem,\n1,2,3')).toEqual([{ cpu: 1n, mem: 2n, column3: 3n }]);
    expect(rows('1,2\n3,4\n')).toEqual([{ '1': 3n, '2': 4n }]);
  });

  test('"the first line is labels only if every field is identifier-like text and a later line holds a number"', () => {
    expect(rows('cpu,mem\n1,2\n3,4\n')).toEqual([
      { cpu: 1n, mem: 2n },
      { cpu: 3n, mem: 4n },
    ]);
    expect(rows('up,down\nup,up\ndown,up\n')).toHaveLength(3);
    expect(rows('1,2\n3,4\n5,6\n')).toHaveLength(3);
    expect(rows('up,up\n1,2\n3,4\n')).toHaveLength(3);
  });

  test('"header: auto | always | never by file pattern"', () => {
    expect(rows('cpu,mem\n', '', 'always')).toEqual([]);
    expect(rows('cpu\n1\n', '', 'never')).toEqual([{ column1: 'cpu' }, { column1: 1n }]);
  });

  test('no value is lost to labels that are missing, repeated or ours', () => {
    expect(columnLabels(['cpu', 'CPU', '', 'row_id', 'cpu_2'], 6)).toEqual([
      'cpu',
      'CPU_2',
      'column3',
      'row_id_4',
      'cpu_2_5',
      'column6',
    ]);
    expect(rows('a,b\n1,2,3\n')).toEqual([{ a: 1n, b: 2n, column3: 3n }]);
    expect(rows('a,b\n1\n')).toEqual([{ a: 1n }]);
  });

  test('"For a plain save that extends the previous content, only new lines are rows"', () => {
    expect(rows('1\n2\n3\n', '1\n2\n')).toEqual([{ column1: 3n }]);
    expect(rows('1\n2\n3', '1\n2')).toEqual([{ column1: 3n }]);
    expect(rows('1\n23\n', '1\n2')).toEqual([{ '1': 23n }]);
    expect(rows('42', '4')).toEqual([{ column1: 42n }]);
    expect(rows('1\n', '1')).toEqual([{ column1: 1n }]);
    expect(rows('1\n', '1\n')).toEqual([{ column1: 1n }]);
    expect(rows('1\n9\n3\n', '1\n2\n')).toHaveLength(3);
  });
});

describe('rowsOfAppend', () => {
  test('a first line that may be labels is decided by the next', () => {
    const first = rowsOfAppend('cpu,mem\n', emptyLogger, 'auto', limits);
    if (!first.isOk) throw new Error(first.error.message);
    expect(first.result.firstIsLabels).toBe('maybe');
    const second = rowsOfAppend('1,2\n', first.result.state, 'auto', limits);
    expect(second).toMatchObject({
      result: { firstIsLabels: 'yes', rows: [{ columns: ['cpu', 'mem'], values: [1n, 2n] }] },
    });
    const text = rowsOfAppend('up,down\n', first.result.state, 'auto', limits);
    expect(text).toMatchObject({
      result: { firstIsLabels: 'no', rows: [{ columns: ['column1', 'column2'] }] },
    });
  });
});
