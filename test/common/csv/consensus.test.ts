import assert from 'node:assert';

import { beforeAll, describe, expect, test } from 'vitest';

import { decodeCsv, parseCsv } from '../../../common/csv/parse-csv.ts';
import { type CsvCase, csvCases } from '../../support/csv/csv-cases.ts';
import { findPeerParsers, type Parsed } from '../../support/csv/csv-parsers.ts';

/** A half of a save must not become a row, whatever lenient parsers make of it. */
const deliberateRefusal = 'unterminated-quote';

interface Verdict {
  readonly csvCase: CsvCase;
  readonly ours: string;
  readonly isDeliberate: boolean;
  /** What more than half of the peers make of it; undefined when they are split. */
  readonly majority: string | undefined;
  /** Peers that make of it what we make. */
  readonly alike: readonly string[];
}

describe('the consensus of CSV parsers', () => {
  let verdicts: readonly Verdict[] = [];

  beforeAll(async () => {
    const { parsers, obstacles } = await findPeerParsers();
    if (obstacles.length > 0) process.stderr.write(`without ${obstacles.join('; ')}\n`);
    const cases = csvCases();
    const texts = cases.map(({ text }) => text);
    const readings = await Promise.all(parsers.map((parser) => parser.parse(texts)));
    assert(readings.every((reading) => reading.length === cases.length));
    verdicts = cases.map((csvCase, index) => {
      const theirs = readings.map((reading) => comparable(reading[index] ?? 'refused'));
      const { reading: ours, isDeliberate } = read(csvCase.text);
      return {
        csvCase,
        ours,
        isDeliberate,
        majority: theirs.find(
          (one) => theirs.filter((other) => other === one).length * 2 > theirs.length,
        ),
        alike: parsers.filter((_, peer) => theirs[peer] === ours).map(({ name }) => name),
      };
    });
    process.stderr.write(
      summary(
        verdicts,
        parsers.map(({ name }) => name),
      ),
    );
  }, 60_000);

  test('where more than half of the parsers agree, so do we', () => {
    const agreed = verdicts.filter(({ majority }) => majority !== undefined);
    expect(agreed.length).toBeGreaterThan(1_000);
    const others = agreed.filter(
      ({ majority, ours, isDeliberate }) => majority !== ours && !isDeliberate,
    );
    expect(others.map(describeVerdict)).toEqual([]);
  });

  test('we accept and refuse as at least one other parser does, except blanks behind a quote', () => {
    const alone = verdicts.filter(({ alike, isDeliberate }) => alike.length === 0 && !isDeliberate);
    expect(alone.filter(({ ours }) => ours === 'refused').map(describeVerdict)).toEqual([]);
    const unexplained = alone.filter(({ csvCase }) => !/"[ \t]+(?:,|\r|\n|$)/.test(csvCase.text));
    expect(unexplained.map(describeVerdict)).toEqual([]);
  });
});

/** Empty lines are compared apart: parsers are split about them (see csv/DESIGN.md). */
function comparable(parsed: Parsed): string {
  if (parsed === 'refused') return parsed;
  return JSON.stringify(parsed.filter((record) => record.length > 1 || (record[0] ?? '') !== ''));
}

function read(text: string): { readonly reading: string; readonly isDeliberate: boolean } {
  const decoded = decodeCsv(Buffer.from(text));
  if (!decoded.isOk) return { reading: 'refused', isDeliberate: false };
  const parsed = parseCsv(decoded.result, { columnsMax: 100, fieldCharactersMax: 65_536 });
  if (parsed.isOk) return { reading: comparable(parsed.result), isDeliberate: false };
  return { reading: 'refused', isDeliberate: parsed.error.code === deliberateRefusal };
}

function describeVerdict({ csvCase, ours, majority }: Verdict): string {
  return `${JSON.stringify(csvCase.text)}: ${ours}, but most: ${majority ?? 'split'}`;
}

/** The table of csv/DESIGN.md: for each kind of case, how many a majority decides and how many each parser reads as we do. */
function summary(verdicts: readonly Verdict[], names: readonly string[]): string {
  const kinds = [...new Set(verdicts.map(({ csvCase }) => csvCase.kind))];
  const lines = kinds.map((kind) => {
    const ofKind = verdicts.filter(({ csvCase }) => csvCase.kind === kind);
    const decided = ofKind.filter(({ majority }) => majority !== undefined);
    const alike = names.map(
      (name) => ofKind.filter((verdict) => verdict.alike.includes(name)).length,
    );
    const withMost = decided.filter(({ majority, ours }) => majority === ours);
    return [kind, ofKind.length, decided.length, withMost.length, ...alike];
  });
  const header = ['kind', 'cases', 'decided', 'we with most', ...names];
  return [header, ...lines].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}
