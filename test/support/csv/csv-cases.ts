import * as fc from 'fast-check';

/** What programs write into CSV files, right and wrong: every combination below is one text. */
const records: Readonly<Record<string, readonly string[]>> = {
  plain: ['1', 'a', '1,2', 'a,b,c', '12.5,x y,-3', 'ä,€,日本,😀', 'x\u00A0,\u2003y'],
  blanks: [' 1 , 2 ', '\t1\t,2', ' ', '   ,  ', ' a', 'a '],
  empty: [',', ',,', 'a,', ',a', 'a,,b', ',,,,,,,'],
  quoted: ['"a"', '"a","b"', '"a,b",c', '""', '"",""', 'a,""', '"",a', '" a "', '"1"', '"ä€"'],
  doubled: ['"a""b"', '""""', '"""a"""', '"a""",b', '"""",""""', '"a""""b"', '"say ""hi"", x"'],
  embedded: ['"a\nb"', '"a\r\nb",c', '"a\rb"', '"\n"', 'x,"1\n2\n3",y', '"a\n\nb"', '"a,\n"'],
  inner: ['5" pipe', 'a"b', 'a"b"c', 'a""b', 'x,5"', 'a""', 'a"', 'ab"c,d"e'],
  blankQuote: [' "a"', ' "a,b"', 'x, "a"', '"a" ', '"a" ,b', '"a"\t,b', ' "a" ,b', 'x,"a" '],
  afterQuote: ['"a"b', '"a"b,c', 'x,"a"b', '"a" b', '"a"b"c"', '"a""b"c', '""a', '"a"1'],
  open: ['"', '"a', 'x,"', 'x,"a', 'a,"b,c', '"a""', '"""', '"a,b'],
  other: ["'a,b'", '1;2', '1\t2', '1|2', '#c', '#a,b', '\\"a', 'a\\,b', '"a\\"b"', 'NULL', '\\N'],
  odd: [
    '\u0001',
    'a\u007Fb',
    '\u0085x',
    'a\u2028b',
    '\u000Bx',
    'x\u000C',
    `${'x'.repeat(9_000)},1`,
  ],
};

const endings: Readonly<Record<string, (record: string) => string>> = {
  'no end': (record) => record,
  LF: (record) => `${record}\n`,
  CRLF: (record) => `${record}\r\n`,
  CR: (record) => `${record}\r`,
  'second after LF': (record) => `1,2\n${record}\n`,
  'first before CRLF': (record) => `${record}\r\n3,4\r\n`,
  'first before CR': (record) => `${record}\r3,4\r`,
  'between, mixed': (record) => `1,2\r\n${record}\n3,4`,
  'byte order mark': (record) => `\uFEFF${record}\n`,
  'empty line before': (record) => `\n${record}\n`,
  'empty line behind': (record) => `${record}\n\n5\n`,
  'empty lines at the end': (record) => `${record}\r\n\r\n\r\n`,
};

export interface CsvCase {
  /** `records` and `endings`: what the case is an example of. */
  readonly kind: string;
  readonly ending: string;
  readonly text: string;
}

/** Texts of characters that matter, in any order; drawn from a fixed seed. */
const randomTextCount = 1_000;
const seed = 4180;

/** Some two thousand texts; the same each time. */
export function csvCases(): readonly CsvCase[] {
  const characters = fc.constantFrom('"', '"', ',', ',', '\n', '\r\n', ' ', '1', 'a', 'é');
  const random = fc.sample(fc.string({ unit: characters, minLength: 1, maxLength: 12 }), {
    numRuns: randomTextCount,
    seed,
  });
  return [
    ...surroundedRecords(),
    ...random.map((text) => ({ kind: 'random', ending: 'random', text })),
  ];
}

function surroundedRecords(): readonly CsvCase[] {
  return Object.entries(records).flatMap(([kind, examples]) =>
    examples.flatMap((record) =>
      Object.entries(endings).map(([ending, surround]) => ({
        kind,
        ending,
        text: surround(record),
      })),
    ),
  );
}
