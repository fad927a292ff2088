import type { SigningIdentity } from '../identity/tls-identity.ts';
import type { Cancel } from '../runtime/clock.ts';
import { signStatement, type KeyClaim, type KeyStatement } from './key-statement.ts';
import { NewestSigningKey, type SiteSigningKey } from './site-signature.ts';

/** Signatures kept, so that what is stated again is not signed again; beyond it all are made anew. */
const keptMax = 65_536;

/** What one site states to a neighbour: claims under its own key, with the certificate of that key alone. */
export interface SignedStatements {
  /** DER, base64. */
  readonly certificate: string;
  readonly statements: KeyStatement[];
}

/**
 * Signs claims with this site's newest signing key, whoever stated them to it: a countersignature replaces the one
 * before. After the key or its authority has changed everything is signed anew.
 */
export class StatementSigner {
  readonly #identity: SigningIdentity;
  readonly #kept = new Map<string, KeyStatement>();
  readonly #newestKey: NewestSigningKey;
  #key: SiteSigningKey | undefined;

  constructor(identity: SigningIdentity) {
    this.#identity = identity;
    this.#newestKey = new NewestSigningKey(identity);
  }

  /** Undefined while the site has no signing key: renewal makes one. */
  sign(claims: readonly KeyClaim[]): SignedStatements | undefined {
    const key = this.#newestKey.get();
    if (key === undefined) return undefined;
    if (key !== this.#key) this.#kept.clear();
    this.#key = key;
    const statements = claims.map((claim) => this.#statementOf(claim, key));
    return { certificate: key.certificate, statements };
  }

  /** Calls `listener` when what was stated should be stated again under a new key. */
  onKeyChange(listener: () => void): Cancel {
    let before = this.#identity.signing()?.cert;
    return this.#identity.onChange(() => {
      const now = this.#identity.signing()?.cert;
      if (now === before) return;
      before = now;
      listener();
    });
  }

  #statementOf(claim: KeyClaim, { key }: SiteSigningKey): KeyStatement {
    const { stream, epoch, publicKey } = claim;
    const place = `${stream.vm}/${stream.kind}/${epoch.number}/${epoch.nonce}`;
    const name = `${place}/${Buffer.from(publicKey).toString('base64')}`;
    const kept = this.#kept.get(name);
    if (kept !== undefined) return kept;
    const statement = signStatement(claim, key);
    if (this.#kept.size >= keptMax) this.#kept.clear();
    this.#kept.set(name, statement);
    return statement;
  }
}
