import type { Cancel } from '../runtime/clock.ts';

/** What a TLS end shows and trusts, all PEM. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
  readonly crl: readonly string[];
}

/** The port through which transports get certificates and learn whom a peer's certificate belongs to. */
export interface TlsIdentity {
  /** The newest material. */
  material(): TlsMaterial;
  /** The relation whose pinned authority issued this verified, unrevoked peer certificate; undefined: nobody we trust. */
  relationOf(peerCertificateDer: Uint8Array): string | undefined;
  /** After renewal, revocation, a new pin: servers swap their secure context and cut connections of peers that relationOf refuses. */
  onChange(listener: () => void): Cancel;
}
