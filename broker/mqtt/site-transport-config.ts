import { isIPv4 } from 'node:net';

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

/** Where a broker is dialled. Whether it may be, {@link problemOfDial} says. */
export const brokerUrlSchema = z
  .string()
  .regex(/^mqtts?:\/\/[^/]+$/, 'mqtt://HOST:PORT or mqtts://HOST:PORT')
  .refine((url) => URL.canParse(url), 'mqtt://HOST:PORT or mqtts://HOST:PORT');

export const externalBrokerSchema = z
  .boolean()
  .default(false)
  .describe(
    'That broker belongs to neither site: mqtts:// by TLS 1.3 with an authority of the system, mqtt:// on this machine.',
  );

/** What is wrong with listening there, and what to do; undefined if nothing is. */
export function problemOfListen(
  { host }: { readonly host: string },
  siteDirectory: string | undefined,
): string | undefined {
  if (siteDirectory !== undefined || isLoopbackHost(host)) return undefined;
  return 'is open to other machines: they need siteDirectory (`isobar site init`); without, listen on 127.0.0.1';
}

/** A broker to dial, and what is known of it. */
export interface Dialling {
  readonly url: string;
  readonly siteDirectory: string | undefined;
  /** The broker belongs to neither site, so that its certificate is no neighbour's. */
  readonly isExternal: boolean;
}

/**
 * What is wrong with dialling so, and what to do; undefined if nothing is.
 *
 *                   no siteDirectory   siteDirectory                     siteDirectory, external broker
 *   mqtt, loopback  clear              refused                           clear
 *   mqtt, remote    refused            refused                           refused
 *   mqtts           refused            mutual TLS 1.3, pinned authority  TLS 1.3, the system's authorities
 */
export function problemOfDial({ url, siteDirectory, isExternal }: Dialling): string | undefined {
  const isSecure = url.startsWith('mqtts:');
  if (siteDirectory === undefined) {
    if (isSecure) return 'mqtts:// needs siteDirectory, which says whom to trust';
    if (isLoopback(url)) return undefined;
    return 'mqtt:// is for this machine only; another one needs siteDirectory (`isobar site init`) and mqtts://HOST:PORT';
  }
  if (isSecure) return undefined;
  if (!isLoopback(url)) return 'mqtt:// is for this machine only; give mqtts://HOST:PORT';
  if (isExternal) return undefined;
  return 'with siteDirectory a neighbour is dialled by mqtts://HOST:PORT; for a broker on this machine that is no neighbour set externalBroker';
}

function isLoopback(url: string): boolean {
  return URL.canParse(url) && isLoopbackHost(new URL(url).hostname);
}

/** Names that only this machine answers to; `host` may be of a URL, with IPv6 in brackets. */
export function isLoopbackHost(host: string): boolean {
  if (isIPv4(host)) return host.startsWith('127.');
  return host === 'localhost' || host === '::1' || host === '[::1]';
}
