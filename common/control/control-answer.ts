import { z } from 'zod';

/** Longest path of a unix socket on Linux: sun_path has 108 bytes and ends in NUL. */
export const socketPathBytesMax = 107;

/** What is wrong with the path of a control socket, and what to do; undefined when nothing is. */
export function socketPathProblem(path: string): string | undefined {
  const byteCount = Buffer.byteLength(path);
  if (byteCount <= socketPathBytesMax) return undefined;
  return `${path} has ${byteCount} bytes, a socket path may have ${socketPathBytesMax}: use a shorter data directory, or set controlSocket`;
}

/** What every control socket answers under {@link processPath}: who lives there. */
export const processAnswerSchema = z.object({
  name: z.string(),
  pid: z.int().positive(),
  startedAtUs: z.int(),
});
export type ProcessAnswer = z.output<typeof processAnswerSchema>;
export const processPath = '/v1/process';

const errorSchema = z.object({
  /** What programs branch on: `vm-unknown`, `revision-conflict`. */
  code: z.string(),
  /** What a person reads: it says what to do. */
  message: z.string(),
  /** Each thing wrong with a document that was sent. */
  problems: z.array(z.object({ path: z.string(), value: z.string(), rule: z.string() })).optional(),
});

/** The body of every answer with a status of 400 or above. */
export const errorAnswerSchema = z.object({ error: errorSchema });
export type ErrorAnswer = z.output<typeof errorAnswerSchema>;
