import { z } from 'zod';

/** What a rule over several fields found: at which of them, and what to do. */
export interface Violation {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** What superRefine hands over, as far as the rules here need it. */
interface Violations {
  addIssue(issue: { code: 'custom'; path: PropertyKey[]; message: string }): void;
}

/** For superRefine: its rule runs although fields have errors, so that all problems are reported at once. */
export const besideFieldErrors = { when: (): boolean => true };

/**
 * A refinement that applies `rule` where the fields that it needs are right, whatever the others are.
 * Use it with {@link besideFieldErrors}.
 */
export function crossFieldRule<Fields extends z.ZodType>(
  fields: Fields,
  rule: (value: z.output<Fields>) => readonly Violation[],
): (document: unknown, violations: Violations) => void {
  return (document, violations) => {
    const parsed = fields.safeParse(document);
    if (!parsed.success) return;
    for (const { path, message } of rule(parsed.data)) {
      violations.addIssue({ code: 'custom', path: [...path], message });
    }
  };
}

/**
 * A refinement of a discriminated union. The union checks nothing else where its discriminator is missing or wrong;
 * this checks every field that any of its alternatives has. Use it with {@link besideFieldErrors}.
 */
export function alternativesRule(
  discriminator: string,
  alternatives: readonly z.ZodObject[],
): (document: unknown, violations: Violations) => void {
  const known = z.looseObject({
    [discriminator]: z.union(alternatives.map(({ shape }) => shape[discriminator] ?? z.never())),
  });
  const shapes: Record<string, z.core.$ZodType> = Object.fromEntries(
    alternatives.flatMap(({ shape }) => Object.entries(shape)),
  );
  const fields = z.strictObject({ ...shapes, [discriminator]: z.unknown() }).partial();
  return (document, violations) => {
    if (typeof document !== 'object' || document === null || known.safeParse(document).success) {
      return;
    }
    for (const issue of fields.safeParse(document).error?.issues ?? []) {
      const found =
        issue.code === 'unrecognized_keys'
          ? issue.keys.map((key) => ({ path: [key], message: 'unknown key' }))
          : [{ path: issue.path, message: issue.message }];
      for (const each of found) violations.addIssue({ code: 'custom', ...each });
    }
  };
}
