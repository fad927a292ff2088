import type { Cancel } from '../runtime/clock.ts';
import type { KeyedCertificate } from './certificates.ts';

/** What a TLS stack needs of a site, as PEM. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  /** The pinned authorities of all neighbours. Their subjects name nobody, as TLS servers send them to whoever asks. */
  readonly ca: readonly string[];
  /**
   * For a TLS stack's own check. Empty when {@link TlsIdentity.relationOf} alone judges revocation: OpenSSL refuses
   * everybody as soon as the list of one authority is missing or late.
   */
  readonly crl: readonly string[];
}

/**
 * What a peer's certificate is shown for.
 *   tls      a handshake
 *   live     a connection whose handshake was accepted earlier: that its certificate has run out is tolerated for a while
 *   signing  a signed request or countersignature
 *   lists    a signed request or answer that carries revocation lists: it counts while our list of the neighbour is late
 *            as well, or no newer one could come. The lists themselves are signed by the authority
 */
export type CertificateUse = 'tls' | 'live' | 'signing' | 'lists';

/** A site's side of mutual TLS 1.3 with its neighbours. */
export interface TlsIdentity {
  /** The newest; the same object as long as nothing changed. */
  material(): TlsMaterial;
  /**
   * The relation whose pinned authority issued this verified, unrevoked peer certificate; undefined: nobody we trust.
   * Does not throw, whatever the bytes. `use` is `tls` when not given.
   */
  relationOf(peerCertificateDer: Uint8Array, use?: CertificateUse): string | undefined;
  /**
   * After renewal, revocation, a new pin: servers swap their secure context and cut connections of peers that
   * relationOf refuses.
   */
  onChange(listener: () => void): Cancel;
}

/** A site's side of what it signs for its neighbours: requests, countersignatures. */
export interface SigningIdentity {
  /** The newest pair, PEM; undefined while there is none. */
  signing(): KeyedCertificate | undefined;
  /** Of the pair, or of anything else that {@link TlsIdentity.onChange} tells. */
  onChange(listener: () => void): Cancel;
}
