import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { isReached } from '../../bench/benchmark.ts';
import { describeMachine } from '../../bench/machine.ts';
import { machineLine, markdownOf } from '../../bench/markdown.ts';
import { reportOf, type SaveSample } from '../../bench/save-throughput.ts';
import { packageRoot } from '../../common/runtime/package-root.ts';

/** Saves a second of each target in each round, the same for every number of writers. */
function samplesOf(rates: Readonly<Record<string, readonly number[]>>): SaveSample[] {
  return Object.entries(rates).flatMap(([target, perRound]) =>
    [1, 4, 16].flatMap((writerCount) =>
      perRound.map((perSecond, round) => ({
        target,
        durability: 'FULL' as const,
        writerCount,
        round,
        perSecond,
        p50Us: 100,
        p99Us: 200,
        failures: 0,
      })),
    ),
  );
}

describe('what the benchmarks print', () => {
  test('saves to reach: 0.8 of the C program with 1 writer, 1.3 with 4, 2 with 16; 1.5 times fuse-native', () => {
    const { goals } = reportOf([], new Set());
    expect(goals.map(({ what, bound, limit }) => [what, bound, limit])).toEqual([
      ['dev-fuse over C libfuse3 at FULL, writers: 1', 'least', 0.8],
      ['dev-fuse over fuse-native at FULL, writers: 1', 'least', 1.5],
      ['dev-fuse over C libfuse3 at FULL, writers: 4', 'least', 1.3],
      ['dev-fuse over fuse-native at FULL, writers: 4', 'least', 1.5],
      ['dev-fuse over C libfuse3 at FULL, writers: 16', 'least', 2],
      ['dev-fuse over fuse-native at FULL, writers: 16', 'least', 1.5],
    ]);
    // Nothing measured is nothing reached.
    expect(goals.filter(isReached)).toEqual([]);
  });

  test('ratios are medians of five interleaved rounds in one run, each within its round', () => {
    const report = reportOf(
      samplesOf({
        'dev-fuse': [1_000, 900, 500, 300, 100],
        'fuse-native': [500, 600, 250, 150, 50],
        'C libfuse3': [500, 500, 250, 100, 100],
      }),
      new Set(),
    );
    expect(report.tables.map(({ title }) => title)).toEqual([
      'FULL, medians of 5 interleaved rounds',
      'NORMAL, medians of 5 interleaved rounds',
      'memory, medians of 5 interleaved rounds',
    ]);
    expect(report.tables[0]?.rows[0]?.slice(0, 5)).toEqual(['dev-fuse', 500, 100, 200, '2.00']);
    const text = markdownOf('Saves', report);
    expect(text).toContain('| dev-fuse over C libfuse3 at FULL, writers: 16 | >= 2 | 2.00 | yes |');
    expect(text).toContain(
      '| dev-fuse over fuse-native at FULL, writers: 1 | >= 1.5 | 2.00 | yes |',
    );
  });

  test('a goal that is not reached, or was not measured, is printed as such', () => {
    const slow = samplesOf({ 'dev-fuse': [50], 'C libfuse3': [100] });
    const text = markdownOf('Saves', reportOf(slow, new Set(['fuse-native was not measured: x'])));
    expect(text).toContain(
      '| dev-fuse over C libfuse3 at FULL, writers: 1 | >= 0.8 | 0.500 | **no** |',
    );
    expect(text).toContain('| >= 1.5 | not measured | **no** |');
    expect(text).toContain('- fuse-native was not measured: x');
  });

  test("the disk's fsync time of the run stands beside the figures", () => {
    const line = machineLine(describeMachine(), { p50Us: 123.4, p99Us: 456.7 });
    expect(line).toContain('fdatasync of this disk 123 µs (p99 457 µs)');
  });

  test('docs/BENCHMARKS.md has the figures as measured, and names what falls short', () => {
    const document = readFileSync(join(packageRoot(), 'docs', 'BENCHMARKS.md'), 'utf8');
    const [measured = '', short = ''] = document.split('## What falls short');
    for (const { what, limit } of reportOf([], new Set()).goals) {
      expect(measured).toMatch(new RegExp(String.raw`\| ${what} +\| +>= ${limit} \| +[0-9.]+ \|`));
    }
    const missed = Array.from(measured.matchAll(/^\| .*writers: (\d+) .*\*\*no\*\*/gm));
    const words: Readonly<Record<string, string>> = { 1: 'One writer', 4: 'Four', 16: 'Sixteen' };
    for (const [, writers = ''] of missed) expect(short).toContain(words[writers]);
  });
});
