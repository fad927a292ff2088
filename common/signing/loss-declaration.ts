import { sign, verify, type KeyObject } from 'node:crypto';

import { z } from 'zod';

import { ByteWriter } from '../wire/byte-writer.ts';
import { writeEpoch } from '../wire/epoch-codec.ts';
import { streamKinds, type Epoch, type StreamId } from '../wire/frame.ts';
import { lossReasons, type LossReason } from '../wire/loss-reason.ts';
import { vmIdSchema } from '../wire/vm-descriptor.ts';
import { digestFor, signatureCharsMax } from './site-signature.ts';

/*
 * Who has frames no more says so under its own name. A site knows its neighbour only, so each hop verifies and signs
 * anew, as with key statements (key-statement.ts):
 *
 *   who gave them up           intermediary                        primary site
 *     sign(claim, own key)
 *        -- declaration -->    verify, make durable
 *                              sign(claim, own key)
 *                                 -- declaration -->               verify, keep as evidence
 *
 * What withdraws a declaration is the frame itself: it needs no signature but its own (docs/decisions/signed-losses.md).
 */

const seq = z.int().positive();

/** A loss as neighbours declare it to each other, in JSON. */
export const lossDeclarationSchema = z
  .strictObject({
    stream: z.strictObject({ vm: vmIdSchema, kind: z.enum(streamKinds) }),
    epoch: z.strictObject({
      number: z.int().nonnegative(),
      nonce: z.string().regex(/^[0-9a-f]{16}$/, '16 hex digits'),
    }),
    fromSeq: seq,
    throughSeq: seq,
    reason: z.enum(lossReasons),
    /** By the clock of who gave the frames up first, µs of the epoch. */
    declaredAtUs: z.int().nonnegative(),
    /** The neighbour's, base64url; null from one that is no site. */
    signature: z
      .string()
      .regex(/^[A-Za-z0-9_-]+$/)
      .max(signatureCharsMax)
      .nullable(),
  })
  .refine(({ fromSeq, throughSeq }) => fromSeq <= throughSeq, 'fromSeq must not exceed throughSeq');
export type LossDeclaration = z.output<typeof lossDeclarationSchema>;

/** Frames of an epoch, both ends included, that whoever claims it has no more, and why. */
export interface LossClaim {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  readonly fromSeq: number;
  readonly throughSeq: number;
  readonly reason: LossReason;
  readonly declaredAtUs: number;
}

/** `ownKey`: EC or Ed25519, private; undefined: nobody signs here. */
export function declareLoss(claim: LossClaim, ownKey: KeyObject | undefined): LossDeclaration {
  const { stream, epoch, fromSeq, throughSeq, reason, declaredAtUs } = claim;
  const signature =
    ownKey === undefined
      ? null
      : sign(digestFor(ownKey), claimBytes(claim), ownKey).toString('base64url');
  return {
    stream: { vm: stream.vm, kind: stream.kind },
    epoch: { number: epoch.number, nonce: epoch.nonce },
    fromSeq,
    throughSeq,
    reason,
    declaredAtUs,
    signature,
  };
}

/** Whether the neighbour with `neighbourKey` (public, or the certificate's) declares exactly this. */
export function isLossSignature(declaration: LossDeclaration, neighbourKey: KeyObject): boolean {
  if (declaration.signature === null) return false;
  const signature = Buffer.from(declaration.signature, 'base64url');
  return verify(digestFor(neighbourKey), claimBytes(declaration), neighbourKey, signature);
}

/** What is signed: begins with words that nothing else signed by a site begins with. */
function claimBytes(claim: LossClaim): Uint8Array {
  const { stream, epoch, fromSeq, throughSeq, reason, declaredAtUs } = claim;
  const writer = new ByteWriter();
  writer.text('isobar loss declaration 1');
  writer.text(stream.vm);
  writer.byte(streamKinds.indexOf(stream.kind));
  writeEpoch(writer, epoch);
  writer.varint(fromSeq);
  writer.varint(throughSeq);
  writer.text(reason);
  writer.varint(declaredAtUs);
  return writer.finish();
}
