import { z } from 'zod';

/** Keys of a configuration that say how a process of a site meets its neighbours; see SiteTransports. */
export const siteDirectorySchema = z
  .string()
  .min(1)
  .optional()
  .describe(
    'Directory that `isobar site init` made. With it neighbours are met over mutual TLS 1.3 only. Default: none, loopback only.',
  );

export const listenSchema = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('Address of our own broker.'),
  port: z.int().min(0).max(65_535).describe('Its port, 0: a free one.'),
});

export const localPortSchema = z
  .int()
  .min(0)
  .max(65_535)
  .optional()
  .describe(
    "With siteDirectory: a port on 127.0.0.1 where this site's own processes reach our broker without TLS. Default: none.",
  );

const loopbackHosts = new Set(['127.0.0.1', 'localhost', '[::1]']);

/** A neighbour's broker. Without TLS only on this machine: frames and control messages would be open to all on the way. */
export const dialSchema = z
  .string()
  .regex(/^mqtts?:\/\/[^/]+$/, 'mqtts://HOST:PORT, or mqtt://HOST:PORT on this machine')
  .refine(
    (url) => !URL.canParse(url) || url.startsWith('mqtts:') || isLoopback(url),
    'mqtt:// is for this machine only; a neighbour is dialled by mqtts://HOST:PORT with siteDirectory',
  );

export function isLoopback(url: string): boolean {
  return loopbackHosts.has(new URL(url).hostname);
}
