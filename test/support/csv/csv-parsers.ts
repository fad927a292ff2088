import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { parse as parseWithCsvParse } from 'csv-parse/sync';
import { csvParseRows } from 'd3-dsv';
import * as Papa from 'papaparse';

import { packageRoot } from '../../../common/runtime/package-root.ts';
import { mustRun } from '../programs/run-program.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { findProgram } from '../test-packages.ts';

/** What a parser made of one text: its records, or `refused`. */
export type Parsed = readonly (readonly string[])[] | 'refused';

/** Reads comma separated values as its users get it by default; takes many texts at once, as processes cost time. */
export interface PeerParser {
  readonly name: string;
  parse(texts: readonly string[]): Promise<readonly Parsed[]>;
}

const byteOrderMark = /^\uFEFF/;

/** The parsers of JavaScript among our development dependencies; always there. */
const libraryParsers: readonly PeerParser[] = [
  inProcess('papaparse', (text) => {
    const { data, errors } = Papa.parse(text, { delimiter: ',' });
    return errors.length > 0 ? 'refused' : data;
  }),
  inProcess('csv-parse', (text) =>
    parseWithCsvParse(text, { bom: true, relax_column_count: true }),
  ),
  inProcess('d3-dsv', (text) => csvParseRows(text.replace(byteOrderMark, ''))),
];

/** Every parser that can be had here, and a line for each that can't. */
export async function findPeerParsers(): Promise<{
  readonly parsers: readonly PeerParser[];
  readonly obstacles: readonly string[];
}> {
  const [python, sqlite, perl] = await Promise.all([
    findProgram('python3'),
    findProgram('sqlite3'),
    findProgram('perl'),
  ]);
  const parsers = [...libraryParsers];
  const obstacles: string[] = [];
  if (typeof python === 'string') obstacles.push(python);
  else parsers.push(scriptParser('Python csv', python, [supportPath('read-csv.py')]));
  if (typeof sqlite === 'string') obstacles.push(sqlite);
  else parsers.push(sqliteParser(sqlite));
  if (typeof perl === 'string') obstacles.push(perl);
  else if (await hasCsvModule(perl)) {
    parsers.push(scriptParser('perl Text::CSV_XS', perl, [supportPath('read-csv.pl')]));
  } else obstacles.push('perl has no Text::CSV_XS: apt-get install libtext-csv-xs-perl');
  return { parsers, obstacles };
}

interface Program {
  readonly path: string;
  readonly environment: Readonly<Record<string, string>>;
}

function inProcess(name: string, parse: (text: string) => string[][] | 'refused'): PeerParser {
  return {
    name,
    parse: (texts) =>
      Promise.resolve(
        texts.map((text) => {
          try {
            return parse(text);
          } catch {
            return 'refused';
          }
        }),
      ),
  };
}

function scriptParser(name: string, program: Program, script: readonly string[]): PeerParser {
  return {
    name,
    parse: async (texts) => {
      using directory = temporaryDirectory();
      const paths = writeAll(directory.path, texts);
      const { stdout } = await mustRun(program.path, script, {
        environment: program.environment,
        input: `${paths.join('\n')}\n`,
      });
      return decodeRecords(stdout);
    },
  };
}

/** Fields that `.import` finds room for; what a record lacks becomes NULL, which no field is. */
const sqliteColumns = 24;

/** `.import` of the sqlite3 shell, which refuses nothing but warns. */
function sqliteParser(program: Program): PeerParser {
  const columns = Array.from({ length: sqliteColumns }, (_, index) => `c${index}`);
  const fields = columns
    .map((column) => `CASE WHEN ${column} IS NULL THEN '' ELSE ',x' || lower(hex(${column})) END`)
    .join(' || ');
  return {
    name: 'sqlite3 .import',
    parse: async (texts) => {
      using directory = temporaryDirectory();
      const commands = writeAll(directory.path, texts).flatMap((path) => [
        `CREATE TABLE t (${columns.map((column) => `${column} TEXT`).join(', ')});`,
        `.import --csv ${path} t`,
        `SELECT substr(${fields}, 2) FROM t ORDER BY rowid;`,
        `DROP TABLE t;`,
        `SELECT '.';`,
      ]);
      const { stdout } = await mustRun(program.path, ['-batch', ':memory:'], {
        environment: program.environment,
        input: `${commands.join('\n')}\n`,
      });
      return decodeRecords(stdout);
    },
  };
}

function writeAll(directory: string, texts: readonly string[]): readonly string[] {
  mkdirSync(directory, { recursive: true });
  return texts.map((text, index) => {
    const path = join(directory, `${index}.csv`);
    writeFileSync(path, text);
    return path;
  });
}

/** The inverse of what read-csv.py prints. */
function decodeRecords(output: string): readonly Parsed[] {
  const all: Parsed[] = [];
  let records: string[][] = [];
  for (const line of output.split('\n').slice(0, -1)) {
    if (line === '.' || line === '!') {
      all.push(line === '.' ? records : 'refused');
      records = [];
    } else {
      const fields = line === '' ? [] : line.split(',');
      records.push(fields.map((field) => Buffer.from(field.slice(1), 'hex').toString()));
    }
  }
  return all;
}

async function hasCsvModule({ path, environment }: Program): Promise<boolean> {
  return mustRun(path, ['-MText::CSV_XS', '-e', '1'], { environment }).then(
    () => true,
    () => false,
  );
}

function supportPath(name: string): string {
  return join(packageRoot(), 'test', 'support', 'csv', name);
}
