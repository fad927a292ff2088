import { readFileSync } from 'node:fs';

import type { z } from 'zod';

import { OperatingError } from '../runtime/operating-error.ts';

/** EX_CONFIG of sysexits.h: what a process exits with when its configuration is at fault. */
export const exitCodeConfig = 78;

/** One thing wrong with a configuration: where, what was found, which rule it breaks. */
export interface ConfigProblem {
  /** `fuse.maxHandles`, `specifiers[2].format`; empty for the whole document. */
  readonly path: string;
  /** The value as JSON, cut short; `***` for secrets. */
  readonly value: string;
  readonly rule: string;
}

/** Every problem of a configuration together. */
export class ConfigError extends OperatingError<'config-invalid' | 'config-unreadable'> {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];

  constructor(
    code: 'config-invalid' | 'config-unreadable',
    source: string,
    problems: readonly ConfigProblem[],
  ) {
    const lines = problems.map((problem) => formatProblem(problem));
    const message = [`${source}: ${problems.length} problem(s)`, ...lines].join('\n');
    super(code, message, { needsSetup: true });
    this.problems = problems;
  }
}

export function formatProblem(problem: ConfigProblem): string {
  const where = problem.path === '' ? '(document)' : problem.path;
  return `  ${where} = ${problem.value}: ${problem.rule}`;
}

/**
 * Checks `document` against `schema` and returns the normalized configuration (defaults filled in).
 * @param source named in errors: a file, `command line`.
 * @throws ConfigError `config-invalid` with every problem at once.
 */
export function parseConfig<Schema extends z.ZodType>(
  schema: Schema,
  document: unknown,
  source: string,
): z.output<Schema> {
  const parsed = schema.safeParse(document);
  if (parsed.success) return parsed.data;
  throw new ConfigError('config-invalid', source, problemsOf(parsed.error, document));
}

/**
 * Reads a JSON file and checks it as {@link parseConfig} does.
 * @throws ConfigError `config-unreadable` when the file is missing or no JSON; the rule says what to do.
 */
export function loadConfig<Schema extends z.ZodType>(
  schema: Schema,
  path: string,
): z.output<Schema> {
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    const rule = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError('config-unreadable', path, [{ path: '', value: '(unreadable)', rule }]);
  }
  return parseConfig(schema, document, path);
}

/** Nobody reads more; a document that something else than a person wrote can have a million. */
const problemsShownMax = 500;

/**
 * Zod's issues as problems, one for each unknown key and with the value that was found: the first 500, and how many more
 * there are.
 */
export function problemsOf(error: z.ZodError, document: unknown): ConfigProblem[] {
  const problems = allProblemsOf(error, document);
  const moreCount = problems.length - problemsShownMax;
  if (moreCount <= 0) return problems;
  const rule = `${moreCount} further problems are not shown`;
  return [...problems.slice(0, problemsShownMax), { path: '', value: '(cut short)', rule }];
}

function allProblemsOf(error: z.ZodError, document: unknown): ConfigProblem[] {
  return error.issues.flatMap((issue): ConfigProblem[] => {
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => {
        const path = [...issue.path, key];
        return { path: formatPath(path), value: show(document, path), rule: 'unknown key' };
      });
    }
    const path = issue.path;
    return [{ path: formatPath(path), value: show(document, path), rule: issue.message }];
  });
}

function formatPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text === '' ? String(key) : `${text}.${String(key)}`;
  }, '');
}

const secretKey = /secret|password|passphrase|token|privatekey/i;
const shownValueCharsMax = 60;

function show(document: unknown, path: readonly PropertyKey[]): string {
  if (path.some((key) => typeof key === 'string' && secretKey.test(key))) return '***';
  let value: unknown = document;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return '(missing)';
    value = Reflect.get(value, key);
  }
  if (value === undefined) return '(missing)';
  const text = JSON.stringify(value);
  return text.length > shownValueCharsMax ? `${text.slice(0, shownValueCharsMax)}...` : text;
}
