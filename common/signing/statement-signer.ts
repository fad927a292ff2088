import { createPrivateKey, type KeyObject } from 'node:crypto';

import type { SigningIdentity } from '../identity/tls-identity.ts';
import type { Cancel } from '../runtime/clock.ts';
import { signStatement, type KeyClaim, type KeyStatement } from './key-statement.ts';

/** Signatures kept, so that what is stated again is not signed again; beyond it all are made anew. */
const keptMax = 65_536;

/** What one site states to a neighbour: claims under its own key, with the certificate of that key alone. */
export interface SignedStatements {
  /** DER, base64. */
  readonly certificate: string;
  readonly statements: KeyStatement[];
}

interface SigningKey {
  readonly certificatePem: string;
  readonly certificate: string;
  readonly key: KeyObject;
}

/**
 * Signs claims with this site's newest signing key, whoever stated them to it: a countersignature replaces the one
 * before. After the key or its authority has changed everything is signed anew.
 */
export class StatementSigner {
  readonly #identity: SigningIdentity;
  readonly #kept = new Map<string, KeyStatement>();
  #key: SigningKey | undefined;

  constructor(identity: SigningIdentity) {
    this.#identity = identity;
  }

  /** Undefined while the site has no signing key: renewal makes one. */
  sign(claims: readonly KeyClaim[]): SignedStatements | undefined {
    const key = this.#newestKey();
    if (key === undefined) return undefined;
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

  #newestKey(): SigningKey | undefined {
    const pair = this.#identity.signing();
    if (pair === undefined) return undefined;
    if (this.#key?.certificatePem === pair.cert) return this.#key;
    this.#kept.clear();
    this.#key = {
      certificatePem: pair.cert,
      certificate: pair.cert.replaceAll(/-----[A-Z ]+-----|\s/g, ''),
      key: createPrivateKey(pair.key),
    };
    return this.#key;
  }

  #statementOf(claim: KeyClaim, { key }: SigningKey): KeyStatement {
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
