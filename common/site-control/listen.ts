import type { Server } from 'node:net';

import { OperatingError, systemErrorCode } from '../runtime/operating-error.ts';

/** Neighbours can't ask; the message says what to do. */
export class SiteControlListenError extends OperatingError<'site-control-listen-failed'> {
  override readonly name = 'SiteControlListenError';
}

/**
 * Resolves once `server` listens.
 * @throws SiteControlListenError, for instance when another process has the port.
 */
export async function listen(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (cause) {
    const reason = systemErrorCode(cause) ?? String(cause);
    throw new SiteControlListenError(
      'site-control-listen-failed',
      `cannot listen on ${host}:${port} (${reason}): choose another place in control.listen, or stop what uses it`,
      { cause, context: { host, port } },
    );
  }
}
