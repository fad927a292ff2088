declare const dataPointBrand: unique symbol;

/**
 * The name of one thing measured: `kpi/<file>/<column>`, `encrypted/<file>` or `infra/<resource>/<quantity>`.
 * File path and column are percent-encoded as encodeURIComponent does, so that a data point has a fixed number
 * of `/` separated segments whatever the application calls its files.
 */
export type DataPoint = string & { readonly [dataPointBrand]: true };

/** The KPI in `column` of the file at `filePath` (relative to `unencrypted/`). */
export function kpiDataPoint(filePath: string, column: string): DataPoint {
  return brand(`kpi/${encodeURIComponent(filePath)}/${encodeURIComponent(column)}`);
}

/** The opaque content of the file at `filePath` (relative to `encrypted/`). */
export function encryptedDataPoint(filePath: string): DataPoint {
  return brand(`encrypted/${encodeURIComponent(filePath)}`);
}

/** A quantity that the host measures, with its unit in the name: `infra/cpu/usage_ratio`. */
export function infraDataPoint(resource: string, quantity: string): DataPoint {
  return brand(`infra/${resource}/${quantity}`);
}

const dataPointShape = /^(?:kpi\/[^/]+\/[^/]+|encrypted\/[^/]+|infra\/[a-z0-9_]+\/[a-z0-9_]+)$/;

/** `text` as a data point, or undefined when it does not have the shape of one. */
export function parseDataPoint(text: string): DataPoint | undefined {
  return dataPointShape.test(text) ? brand(text) : undefined;
}

/**
 * Compiles a pattern over data points: `*` stands for any run of characters within a segment, `**` as a whole
 * segment for any number of segments; everything else stands for itself. Matching takes time in proportion to the
 * pattern times the text at most, whatever they are, which a regular expression does not promise.
 */
export function compileDataPointPattern(pattern: string): (dataPoint: string) => boolean {
  const segments = pattern.split('/').map((segment) => segmentMatcher(segment));
  return (dataPoint) => {
    const texts = dataPoint.split('/');
    return matchesAll(segments, texts.length, (matches, index) => matches(texts[index] ?? ''));
  };
}

const anyRun: unique symbol = Symbol('any run');

/** What `*` and the characters between are within a segment; `**` alone is a run of segments. */
function segmentMatcher(segment: string): ((text: string) => boolean) | typeof anyRun {
  if (segment === '**') return anyRun;
  if (!segment.includes('*')) return (text) => text === segment;
  const parts = segment.split('').map((unit) => (unit === '*' ? anyRun : unit));
  return (text) => matchesAll(parts, text.length, (unit, index) => unit === text[index]);
}

/**
 * Whether `parts` stand for all of `length` items, where `anyRun` stands for any number of them. What the latest run does
 * not have to take, an earlier one need not: so only that one is ever widened.
 */
function matchesAll<Part>(
  parts: readonly (Part | typeof anyRun)[],
  length: number,
  matchesAt: (part: Part, index: number) => boolean,
): boolean {
  let part = 0;
  let item = 0;
  let latestRun: { readonly part: number; item: number } | undefined;
  while (item < length) {
    const present = parts[part];
    if (present === anyRun) {
      latestRun = { part, item };
      part += 1;
    } else if (present !== undefined && matchesAt(present, item)) {
      part += 1;
      item += 1;
    } else if (latestRun === undefined) {
      return false;
    } else {
      latestRun.item += 1;
      part = latestRun.part + 1;
      ({ item } = latestRun);
    }
  }
  while (parts[part] === anyRun) part += 1;
  return part === parts.length;
}

/** The kinds of data points: their first segment, and below it as many segments as there are nulls. */
const kindShapes = {
  kpi: ['kpi', null, null],
  encrypted: ['encrypted', null],
  infra: ['infra', null, null],
} as const;
export type DataPointKind = keyof typeof kindShapes;

/** Whether `pattern` can match any data point of `kind`; so do `**` and `enc*` with one segment below it, for encrypted. */
export function patternReaches(pattern: string, kind: DataPointKind): boolean {
  const shape = kindShapes[kind];
  const segments = pattern.split('/').map((segment) => segmentMatcher(segment));
  return matchesAll(segments, shape.length, (matches, index) => {
    const name = shape[index];
    return typeof name !== 'string' || matches(name);
  });
}

/**
 * Why `pattern` can never match a data point, and what to write; undefined when it can.
 * Segments are percent-encoded as those of data points are, `*` aside, and as many as some kind has.
 */
export function patternProblem(pattern: string): string | undefined {
  for (const segment of pattern.split('/')) {
    if (segment === '') return 'a segment between two / is empty; leave one / out';
    const encoded = encodeSegment(segment);
    if (encoded === undefined) return `"${segment}": write a % as %25`;
    if (encoded !== segment) return `"${segment}" is written ${encoded} here, percent-encoded`;
  }
  if (canMatch(pattern)) return undefined;
  return (
    'matches no data point; write kpi/FILE/COLUMN, encrypted/FILE or infra/RESOURCE/QUANTITY, ' +
    '* for any characters of a segment, ** for any segments, %2F for a / in FILE'
  );
}

/** Resources and quantities are ours to name, so their characters are known. */
const infraSegment = /^[a-z0-9_*]+$/;

function canMatch(pattern: string): boolean {
  if (patternReaches(pattern, 'kpi') || patternReaches(pattern, 'encrypted')) return true;
  const [, ...below] = pattern.split('/');
  return patternReaches(pattern, 'infra') && below.every((segment) => infraSegment.test(segment));
}

/** Undefined when its percent signs begin no code of a character. */
function encodeSegment(segment: string): string | undefined {
  try {
    return encodeURIComponent(decodeURIComponent(segment));
  } catch {
    return undefined;
  }
}

/**
 * Every `RESOURCE/QUANTITY` that a host can measure of a VM from outside; units stand in the names. A probe leaves out
 * what its source does not tell.
 */
export const infraQuantities = [
  'cpu/usage_ratio',
  'cpu/time_us',
  'memory/used_bytes',
  'memory/available_bytes',
  'disk/read_bytes',
  'disk/written_bytes',
  'network/received_bytes',
  'network/sent_bytes',
] as const;

/**
 * Why `pattern`, which reaches nothing but infrastructure, names no quantity that a host measures, and which there
 * are; undefined when it names one.
 */
export function quantityProblem(pattern: string): string | undefined {
  const isInfraOnly =
    patternProblem(pattern) === undefined &&
    patternReaches(pattern, 'infra') &&
    !patternReaches(pattern, 'kpi') &&
    !patternReaches(pattern, 'encrypted');
  if (!isInfraOnly) return undefined;
  const matches = compileDataPointPattern(pattern);
  const known = infraQuantities.map((quantity) => `infra/${quantity}`);
  if (known.some((dataPoint) => matches(dataPoint))) return undefined;
  return `names no quantity that a host measures; there are ${known.join(', ')}`;
}

/** Whether `pattern` names exactly one data point. */
export function isLiteralPattern(pattern: string): boolean {
  return !pattern.includes('*') && parseDataPoint(pattern) !== undefined;
}

function brand(text: string): DataPoint {
  return text as DataPoint;
}
