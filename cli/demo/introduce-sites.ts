import { fingerprintOf } from '../../common/identity/fingerprint.ts';
import { createInvitation, trustInvitation } from '../../common/identity/invitation.ts';
import { SiteAuthority } from '../../common/identity/site-authority.ts';
import { siteDocumentSchema } from '../../common/identity/site-files.ts';
import type { Clock } from '../../common/runtime/clock.ts';

/** Makes a site's directory as `isobar site init` does. */
export async function initSite(
  clock: Clock,
  directory: string,
  site: { readonly name: string; readonly port: number | undefined },
): Promise<void> {
  const document = siteDocumentSchema.parse({
    apiVersion: 'isobar/v1',
    kind: 'Site',
    name: site.name,
    listen: site.port === undefined ? [] : [`127.0.0.1:${site.port}`],
  });
  await new SiteAuthority({ clock }, directory).init(document);
}

/**
 * What the operators of two sites do with `isobar site invite` and `isobar site trust`, fingerprints compared: both
 * directories are on this machine, so nobody can have exchanged the invitations.
 */
export async function introduceSites(
  clock: Clock,
  relation: string,
  sites: { readonly producer: string; readonly consumer: string },
): Promise<void> {
  const fromProducer = await createInvitation(sites.producer, relation, 'producer');
  const fromConsumer = await createInvitation(sites.consumer, relation, 'consumer');
  for (const [directory, invitation] of [
    [sites.consumer, fromProducer],
    [sites.producer, fromConsumer],
  ] as const) {
    const fingerprints = invitation.authorities.map((pem) => fingerprintOf(pem));
    await trustInvitation(clock, directory, invitation, fingerprints);
  }
}
