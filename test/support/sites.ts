import { join } from 'node:path';

import { fingerprintOf } from '../../common/identity/fingerprint.ts';
import { createInvitation, trustInvitation } from '../../common/identity/invitation.ts';
import {
  SiteAuthority,
  defaultLifetimes,
  type Lifetimes,
} from '../../common/identity/site-authority.ts';
import { SystemClock, type Clock } from '../../common/runtime/clock.ts';

/** Makes the directory of a site below `parent`; returns its path. */
export async function makeSite(
  parent: string,
  name: string,
  options: {
    readonly clock?: Clock;
    readonly lifetimes?: Lifetimes;
    readonly listen?: string[];
  } = {},
): Promise<string> {
  const directory = join(parent, name);
  const clock = options.clock ?? new SystemClock();
  const authority = new SiteAuthority({ clock }, directory, options.lifetimes ?? defaultLifetimes);
  await authority.init({
    apiVersion: 'isobar/v1',
    kind: 'Site',
    name,
    listen: options.listen ?? [],
    neighbours: [],
  });
  return directory;
}

/** Lets both sites trust each other as two people with the right fingerprints would. */
export async function makeNeighbours(
  relation: string,
  producer: string,
  consumer: string,
  clock: Clock = new SystemClock(),
): Promise<void> {
  await trustSite(clock, consumer, producer, relation, 'producer');
  await trustSite(clock, producer, consumer, relation, 'consumer');
}

/** `truster` pins what `trusted` invites it with at present. */
export async function trustSite(
  clock: Clock,
  truster: string,
  trusted: string,
  relation: string,
  role: 'producer' | 'consumer',
): Promise<void> {
  const invitation = await createInvitation(trusted, relation, role);
  const confirmed = invitation.authorities.map((pem) => fingerprintOf(pem));
  await trustInvitation(clock, truster, invitation, confirmed);
}
