import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { ServiceGroup, type Service } from '../runtime/service.ts';
import { FileTlsIdentity, fileTlsIdentityDefaults } from './file-tls-identity.ts';
import { IdentityKeeper } from './identity-keeper.ts';
import { defaultLifetimes, SiteAuthority, type Lifetimes } from './site-authority.ts';

/** A running site's identity: watched, renewed, and ready for transports. */
export interface SiteIdentity {
  readonly identity: FileTlsIdentity;
  /** To be started before whatever uses the identity, and stopped after it. */
  readonly service: Service;
}

/** The identity of the site directory that `isobar site init` made. Several processes of a site may each have one. */
export function buildSiteIdentity(
  deps: { readonly clock: Clock; readonly log: Log },
  directory: string,
  lifetimes: Lifetimes = defaultLifetimes,
): SiteIdentity {
  const identity = new FileTlsIdentity(deps, { ...fileTlsIdentityDefaults, directory });
  const authority = new SiteAuthority(deps, directory, lifetimes);
  const onRenewed = () => identity.reload();
  const keeper = new IdentityKeeper({ ...deps, authority, directory, onRenewed });
  return { identity, service: new ServiceGroup('site-identity', [keeper, identity]) };
}
