import { z } from 'zod';

const issuesShownMax = 3;
const charsMax = 512;

/**
 * What is wrong with something that a peer sent, for a log line: the first problems, at most 512 characters. A message of
 * some kilobytes can have a hundred thousand problems.
 */
export function briefProblem(error: z.ZodError): string {
  const shown = error.issues.slice(0, issuesShownMax);
  const text = z.prettifyError(new z.ZodError(shown));
  const more = error.issues.length - shown.length;
  const cut = text.length > charsMax - 32 ? `${text.slice(0, charsMax - 32)}...` : text;
  return more === 0 ? cut : `${cut} (${more} more)`;
}
