import { z } from 'zod';

/** Where neighbours ask us: key `control` of a site's process. */
export const controlSchema = z.strictObject({
  listen: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1').describe('Address for requests of neighbours.'),
      port: z.int().min(0).max(65_535).describe('Its port, 0: a free one.'),
    })
    .describe('Address and port for them.'),
});

/** Where a neighbour answers: its `control.listen`, as it is reached from here. */
export const controlUrlSchema = z
  .string()
  .regex(/^https:\/\/(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/, 'https://HOST:PORT');
