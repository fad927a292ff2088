import { X509Certificate } from 'node:crypto';

import { namesOf, signingUsage, siteUri } from './certificates.ts';
import { normalSerial, type RevocationList } from './revocation-list.ts';
import type { CertificateUse } from './tls-identity.ts';

/** One authority that we pinned for a relation; a neighbour has several while it rotates. */
export interface Pin {
  readonly relation: string;
  readonly siteName: string;
  readonly authority: X509Certificate;
  /** Its newest list; `unreadable` when there is a file but no list of this neighbour in it. */
  readonly revocations: RevocationList | 'unreadable' | undefined;
}

export interface TrustPolicy {
  /** While an authority's revocation list is missing or late, its certificates are accepted up to this age. */
  readonly revocationGraceMs: number;
  /** A live connection may outlast its peer's certificate by this. */
  readonly liveOverrunMs: number;
}

export type PeerRefusal =
  | 'unreadable'
  | 'unknown-authority'
  | 'authority-expired'
  | 'wrong-name'
  | 'wrong-usage'
  | 'not-yet-valid'
  | 'expired'
  | 'revoked'
  | 'revocation-unknown';

export type PeerVerdict =
  | { readonly ok: true; readonly relation: string }
  | { readonly ok: false; readonly reason: PeerRefusal; readonly relation?: string };

/** Far above any leaf of ours; what is larger is not parsed. */
const certificateBytesMax = 16_384;

const tlsUsages = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'];

/**
 * Judges a peer's certificate by the pins alone; pure. The chain has exactly one step, from a pinned authority to the
 * peer. Fails closed: each check must pass.
 */
export function judgePeer(
  pins: readonly Pin[],
  der: Uint8Array,
  use: CertificateUse,
  nowMs: number,
  policy: TrustPolicy,
): PeerVerdict {
  if (der.length > certificateBytesMax) return { ok: false, reason: 'unreadable' };
  try {
    const certificate = new X509Certificate(der);
    const pin = pins.find(
      ({ authority }) =>
        certificate.checkIssued(authority) && certificate.verify(authority.publicKey),
    );
    if (pin === undefined) return { ok: false, reason: 'unknown-authority' };
    const reason = refusalOf(pin, certificate, use, nowMs, policy);
    if (reason === undefined) return { ok: true, relation: pin.relation };
    return { ok: false, reason, relation: pin.relation };
  } catch {
    // Whatever a peer sends; the caller counts the refusal.
    return { ok: false, reason: 'unreadable' };
  }
}

function refusalOf(
  pin: Pin,
  certificate: X509Certificate,
  use: CertificateUse,
  nowMs: number,
  policy: TrustPolicy,
): PeerRefusal | undefined {
  if (nowMs < Date.parse(pin.authority.validFrom)) return 'not-yet-valid';
  if (nowMs > Date.parse(pin.authority.validTo)) return 'authority-expired';
  const { uris, usages, isAuthority } = namesOf(certificate.raw);
  const isNamed =
    uris.length === 1 &&
    uris[0] === siteUri(pin.siteName) &&
    certificate.subject === `CN=${pin.siteName}`;
  if (isAuthority || !isNamed) return 'wrong-name';
  const expectedUsages = use === 'signing' || use === 'lists' ? [signingUsage] : tlsUsages;
  if (!expectedUsages.every((usage) => usages.includes(usage))) return 'wrong-usage';
  const notBeforeMs = Date.parse(certificate.validFrom);
  const overrunMs = use === 'live' ? policy.liveOverrunMs : 0;
  if (nowMs < notBeforeMs) return 'not-yet-valid';
  if (nowMs > Date.parse(certificate.validTo) + overrunMs) return 'expired';
  if (pin.revocations === 'unreadable') return 'revocation-unknown';
  if (pin.revocations?.serials.has(normalSerial(certificate.serialNumber)) === true) {
    return 'revoked';
  }
  if (use === 'live' || use === 'lists') return undefined;
  const isListCurrent = pin.revocations !== undefined && nowMs <= pin.revocations.nextUpdateMs;
  const isYoung = nowMs - notBeforeMs <= policy.revocationGraceMs;
  return isListCurrent || isYoung ? undefined : 'revocation-unknown';
}
