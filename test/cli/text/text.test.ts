import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { formatDurationMs, parseDurationMs } from '../../../cli/text/duration.ts';
import { createStyle, printable, visibleCharacters } from '../../../cli/text/style.ts';
import { formatTable } from '../../../cli/text/table.ts';
import { formatAge, formatTimeUs, parseTimeUs } from '../../../cli/text/time.ts';
import { formatBytes, formatCount, formatValue } from '../../../cli/text/value.ts';

const nowUs = Date.parse('2026-03-04T05:06:07.008Z') * 1_000;

describe('durations', () => {
  test.each([
    ['10m', 600_000],
    ['1h30m', 5_400_000],
    ['250ms', 250],
    ['1.5s', 1_500],
    ['2d', 172_800_000],
  ])('%s', (text, durationMs) => {
    expect(parseDurationMs(text)).toBe(durationMs);
  });

  test.each(['', '10', 'm', '10 m', '10mm', '-1s', '1s!'])('refuses %j', (text) => {
    expect(parseDurationMs(text)).toBeUndefined();
  });

  test.each([
    [0, '0 ms'],
    [999, '999 ms'],
    [4_250, '4.3 s'],
    [59_000, '59 s'],
    [60_000, '1 min'],
    [7_500_000, '2 h 5 min'],
    [9 * 86_400_000, '9 d'],
  ])('%d ms is %s', (durationMs, text) => {
    expect(formatDurationMs(durationMs)).toBe(text);
  });
});

describe('times', () => {
  test.each([
    ['10m', '2026-03-04T04:56:07.008Z'],
    ['now', '2026-03-04T05:06:07.008Z'],
    ['2026-01-01T00:00Z', '2026-01-01T00:00:00.000Z'],
    ['2026-01-01', '2026-01-01T00:00:00.000Z'],
    ['2026-01-01T01:02:03', '2026-01-01T01:02:03.000Z'],
    ['2026-01-01T01:02:03.5+01:00', '2026-01-01T00:02:03.500Z'],
  ])('--since %s', (text, iso) => {
    expect(formatTimeUs(parseTimeUs(text, nowUs)!)).toBe(iso);
  });

  test.each(['yesterday', '2026-13-01', '2026-01-01T25:00Z', '10', ''])('refuses %j', (text) => {
    expect(parseTimeUs(text, nowUs)).toBeUndefined();
  });

  test('what is printed can be given back', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4_000_000_000_000 }), (timeMs) => {
        expect(parseTimeUs(formatTimeUs(timeMs * 1_000), nowUs)).toBe(timeMs * 1_000);
      }),
    );
  });

  test('ages, and clocks that are ahead', () => {
    expect(formatAge(nowUs - 4_200_000, nowUs)).toBe('4.2 s ago');
    expect(formatAge(nowUs + 1_000, nowUs)).toBe('0 ms ago');
    expect(formatAge(nowUs + 180_000_000, nowUs)).toBe('in 3 min');
  });
});

describe('values', () => {
  test('infrastructure quantities are scaled by the unit in their name', () => {
    expect(formatValue(1_610_612_736, 'infra/memory/used_bytes', { isScaled: true })).toBe(
      '1.5 GiB',
    );
    expect(formatValue(0.1234, 'infra/cpu/usage_ratio', { isScaled: true })).toBe('12.3 %');
    expect(formatValue(4_200_000n, 'infra/cpu/time_us', { isScaled: true })).toBe('4.2 s');
  });

  test('what an application saved is shown exactly', () => {
    expect(formatValue(1_610_612_736, 'kpi/disk/used_bytes', { isScaled: true })).toBe(
      '1610612736',
    );
    expect(formatValue(9_223_372_036_854_775_807n, 'kpi/a/b', { isScaled: true })).toBe(
      '9223372036854775807',
    );
    expect(formatValue('007', 'kpi/a/b', { isScaled: true })).toBe('007');
    expect(formatValue(null, 'kpi/a/b', { isScaled: true })).toBe('(empty)');
    expect(formatValue(new Uint8Array([1, 255]), 'encrypted/a', { isScaled: true })).toBe(
      '2 bytes 01ff',
    );
  });

  test('control characters in data do not reach the terminal', () => {
    expect(formatValue('a\u001B[2Jb\nc', 'kpi/a/b', { isScaled: true })).toBe(
      String.raw`a\u001b[2Jb\nc`,
    );
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(printable(text)).not.toMatch(/\p{Cc}/u);
      }),
    );
  });

  test('bytes and counts', () => {
    expect(formatBytes(1_023)).toBe('1023 B');
    expect(formatBytes(1_024)).toBe('1.0 KiB');
    expect(formatCount(1_234_567)).toBe('1,234,567');
    expect(formatCount(999)).toBe('999');
  });
});

describe('tables', () => {
  const columns = [
    { title: 'NAME', widthMin: 6 },
    { title: 'COUNT', alignment: 'right' },
  ] as const;

  test('align by column and leave no trailing blanks', () => {
    expect(
      formatTable(columns, [
        ['a', '1'],
        ['long-name', '1000'],
      ]),
    ).toEqual(['NAME       COUNT', 'a              1', 'long-name   1000']);
  });

  test('are cut to the terminal, and say so', () => {
    expect(formatTable(columns, [['long-name', '1']], 14)).toEqual([
      'NAME     COUNT',
      'long-n…      1',
    ]);
  });

  test('ignore escape sequences when they measure', () => {
    const style = createStyle(true);
    expect(visibleCharacters(style.red('abc'))).toEqual(['a', 'b', 'c']);
    const [, row] = formatTable(columns, [[style.red('abc'), '1']]);
    expect(row).toBe(`${style.red('abc')}       1`);
  });

  test('colour off is plain text', () => {
    expect(createStyle(false).red('abc')).toBe('abc');
  });
});
