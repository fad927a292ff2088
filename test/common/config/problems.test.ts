import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { briefProblem } from '../../../common/config/brief-problem.ts';
import { problemsOf } from '../../../common/config/load-config.ts';

const schema = z.strictObject({ list: z.array(z.int()).optional() });

function errorOf(document: unknown): z.ZodError {
  const parsed = schema.safeParse(document);
  if (parsed.success) throw new Error('a wrong document');
  return parsed.error;
}

describe('what is wrong with a document of any size', () => {
  const unknownKeys = Object.fromEntries(
    Array.from({ length: 10_000 }, (_, index) => [`key${index}`, 0]),
  );
  const wrongItems = { list: Array.from({ length: 10_000 }, () => 'no number') };

  test('is told a person as 500 problems and how many more there are', () => {
    for (const document of [unknownKeys, wrongItems]) {
      const problems = problemsOf(errorOf(document), document);
      expect(problems).toHaveLength(501);
      expect(problems.at(-1)?.rule).toBe('9500 further problems are not shown');
    }
    expect(problemsOf(errorOf({ list: ['x'] }), { list: ['x'] })).toHaveLength(1);
  });

  test('takes at most 512 characters in a log', () => {
    for (const document of [unknownKeys, wrongItems]) {
      expect(briefProblem(errorOf(document)).length).toBeLessThanOrEqual(512);
    }
    expect(briefProblem(errorOf(wrongItems))).toMatch(/list\[0\][^]*\(9997 more\)$/);
    expect(briefProblem(errorOf({ list: ['x'] }))).toContain('list[0]');
  });
});
