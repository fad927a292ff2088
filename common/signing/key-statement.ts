import { sign, verify, type KeyObject } from 'node:crypto';

import { z } from 'zod';

import { ByteWriter } from '../wire/byte-writer.ts';
import { writeEpoch } from '../wire/epoch-codec.ts';
import { streamKinds, type Epoch, type StreamId } from '../wire/frame.ts';
import { vmIdSchema } from '../wire/vm-descriptor.ts';
import { epochPublicKey } from './epoch-key.ts';
import { digestFor, signatureCharsMax } from './site-signature.ts';

/*
 * How a reader comes to know an epoch's key without knowing who wrote it:
 *
 *   source site               intermediary                        primary site
 *     sign(claim, source key)
 *        -- statement -->     verify(statement, source's key)
 *                             countersign(verified, own key)
 *                                -- statement -->                 verify(statement, intermediary's key)
 *
 * The claim is the same at each hop, the signature is only ever that of the neighbour: a countersignature replaces the
 * one before, so nothing of a site goes further than to its neighbour. Everyone in the chain can put in a key of its
 * own while the key is exchanged; nobody can afterwards (docs/SECURITY.md).
 */

const epochSchema = z.strictObject({
  number: z.int().nonnegative(),
  nonce: z.string().regex(/^[0-9a-f]{16}$/),
});

/** Characters of a public key on P-256 as base64url. */
const publicKeyCharsMax = 256;
const base64url = z.string().regex(/^[A-Za-z0-9_-]+$/);

/** A key statement as neighbours send it to each other, in JSON. */
export const keyStatementSchema = z.strictObject({
  stream: z.strictObject({ vm: vmIdSchema, kind: z.enum(streamKinds) }),
  epoch: epochSchema,
  /** SubjectPublicKeyInfo, DER, base64url. */
  publicKey: base64url.max(publicKeyCharsMax),
  /** The epoch before it; null for a stream's first. */
  predecessor: epochSchema.nullable(),
  /** The neighbour's, base64url. */
  signature: base64url.max(signatureCharsMax),
});
export type KeyStatement = z.output<typeof keyStatementSchema>;

/** What a statement says: frames of this epoch are signed by this key. */
export interface KeyClaim {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly publicKey: Uint8Array;
  readonly predecessor: Epoch | null;
}

declare const verifiedBrand: unique symbol;
/** A claim whose neighbour's signature was found right; only {@link verifyStatement} makes one. */
export type VerifiedClaim = KeyClaim & { readonly [verifiedBrand]: true };

export type StatementOutcome =
  | { readonly ok: true; readonly claim: VerifiedClaim }
  | { readonly ok: false; readonly code: 'malformed' | 'wrong-signature' };

/** The source site's statement about a key that was made on its own host. `ownKey`: EC or Ed25519, private. */
export function signStatement(claim: KeyClaim, ownKey: KeyObject): KeyStatement {
  const { stream, epoch, publicKey, predecessor } = claim;
  return {
    stream: { vm: stream.vm, kind: stream.kind },
    epoch: { number: epoch.number, nonce: epoch.nonce },
    publicKey: Buffer.from(publicKey).toString('base64url'),
    predecessor:
      predecessor === null ? null : { number: predecessor.number, nonce: predecessor.nonce },
    signature: sign(digestFor(ownKey), claimBytes(claim), ownKey).toString('base64url'),
  };
}

/**
 * Whether the neighbour with `neighbourKey` (public, or the certificate's) states this. Takes anything: what came over
 * the wire, parsed from JSON. Never throws.
 */
export function verifyStatement(statement: unknown, neighbourKey: KeyObject): StatementOutcome {
  const parsed = keyStatementSchema.safeParse(statement);
  if (!parsed.success) return { ok: false, code: 'malformed' };
  const { stream, epoch, predecessor, signature } = parsed.data;
  const publicKey = Buffer.from(parsed.data.publicKey, 'base64url');
  if (epochPublicKey(publicKey) === undefined) return { ok: false, code: 'malformed' };
  const claim = { stream, epoch, publicKey, predecessor };
  const signatureBytes = Buffer.from(signature, 'base64url');
  return verify(digestFor(neighbourKey), claimBytes(claim), neighbourKey, signatureBytes)
    ? { ok: true, claim: brand(claim) }
    : { ok: false, code: 'wrong-signature' };
}

/** The statement for the next hop: the same claim under our own signature alone. */
export function countersign(verified: VerifiedClaim, ownKey: KeyObject): KeyStatement {
  return signStatement(verified, ownKey);
}

/** What is signed: begins with words that nothing else signed by a site begins with. */
function claimBytes({ stream, epoch, publicKey, predecessor }: KeyClaim): Uint8Array {
  const writer = new ByteWriter();
  writer.text('isobar key statement 1');
  writer.text(stream.vm);
  writer.byte(streamKinds.indexOf(stream.kind));
  writeEpoch(writer, epoch);
  writer.bytes(publicKey);
  writer.byte(predecessor === null ? 0 : 1);
  if (predecessor !== null) writeEpoch(writer, predecessor);
  return writer.finish();
}

function brand(claim: KeyClaim): VerifiedClaim {
  return claim as VerifiedClaim;
}
