import type { FrameProtector } from '../../broker/ports.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { Random } from '../../common/runtime/random.ts';
import { sealEnvelope } from '../../common/sealing/cms-envelope.ts';
import {
  contentKeyToBytes,
  newContentKey,
  sealBody,
  type ContentKey,
} from '../../common/sealing/content-key.ts';
import { parseRecipients } from '../../common/sealing/recipients.ts';
import { signFrame } from '../../common/signing/epoch-key.ts';
import type { BodySeal, FrameProtection } from '../../common/wire/frame-codec.ts';
import type { Epoch, FrameHeader, FrameRecord, StreamId } from '../../common/wire/frame.ts';
import type { VmId } from '../../common/wire/vm-descriptor.ts';
import type { EpochKeyStore } from './epoch-key-store.ts';

export interface OriginProtectorOptions {
  /** Whether epochs of both streams that begin from now on are signed; one that is open goes on as it began. */
  readonly signs: boolean;
  /** A content key seals for at most so long. */
  readonly keyRotationMs: number;
  /** A frame carries the key's envelope again after so long, for a reader that lost the first. */
  readonly keyRepeatMs: number;
}

/** A content key in use; it is in no database (docs/decisions/content-keys.md). */
interface Sealing {
  readonly key: ContentKey;
  readonly envelope: Uint8Array;
  readonly recipientsPem: string;
  readonly epochNonce: string;
  readonly madeAtMs: number;
  lastSeq: number;
  announcedAtMs: number;
}

/**
 * Seals the data streams of VMs whose primary site has a key, and signs. The status stream stays in the clear for
 * intermediaries, and so do frames that only open or close an epoch. What a descriptor asks for is done or the append
 * fails: nothing falls back to the clear.
 */
export class OriginProtector implements FrameProtector {
  readonly #deps: {
    readonly clock: Clock;
    readonly random: Random;
    readonly keys: EpochKeyStore;
  };
  readonly #options: OriginProtectorOptions;
  readonly #recipientsPems = new Map<VmId, string>();
  readonly #sealings = new Map<VmId, Sealing>();

  constructor(
    deps: { readonly clock: Clock; readonly random: Random; readonly keys: EpochKeyStore },
    options: OriginProtectorOptions,
  ) {
    this.#deps = deps;
    this.#options = options;
  }

  /** For whom the data stream of `vm` is sealed from its next frame on; undefined: it is in the clear. */
  setRecipients(vm: VmId, pem: string | undefined): void {
    if (pem === undefined) {
      this.#recipientsPems.delete(vm);
      this.#sealings.delete(vm);
    } else {
      this.#recipientsPems.set(vm, pem);
    }
  }

  protect(header: FrameHeader, records: readonly FrameRecord[]): FrameProtection {
    const seal = this.#sealOf(header, records);
    const sign = this.#signOf(header, records);
    return { ...(seal === undefined ? {} : { seal }), ...(sign === undefined ? {} : { sign }) };
  }

  /** Whether the epoch was begun as frames are signed now: all of it is signed, or nothing. */
  isSignedAsAsked(stream: StreamId, epoch: Epoch): boolean {
    return (this.#deps.keys.find(stream, epoch) !== undefined) === this.#options.signs;
  }

  #sealOf(header: FrameHeader, records: readonly FrameRecord[]): BodySeal | undefined {
    const { stream, seq } = header;
    const recipientsPem = this.#recipientsPems.get(stream.vm);
    if (recipientsPem === undefined || stream.kind !== 'data' || records.every(isLifeCycle)) {
      return undefined;
    }
    const nowMs = this.#deps.clock.monotonicMs();
    let sealing = this.#sealings.get(stream.vm);
    if (sealing === undefined || !this.#isGoodFor(sealing, header, recipientsPem, nowMs)) {
      sealing = this.#newSealing(header, recipientsPem, nowMs);
      this.#sealings.set(stream.vm, sealing);
    }
    const { key, envelope } = sealing;
    const announces =
      sealing.lastSeq === 0 || nowMs - sealing.announcedAtMs >= this.#options.keyRepeatMs;
    if (announces) sealing.announcedAtMs = nowMs;
    sealing.lastSeq = seq;
    return {
      keyId: key.keyId,
      keyEnvelope: announces ? envelope : null,
      encrypt: (body, associatedData) => sealBody(key, header, body, associatedData),
    };
  }

  /** A seq that comes again, after a transaction that was rolled back, gets a new key: a nonce is used once. */
  #isGoodFor(
    sealing: Sealing,
    { epoch, seq }: FrameHeader,
    recipientsPem: string,
    nowMs: number,
  ): boolean {
    return (
      sealing.epochNonce === epoch.nonce &&
      sealing.lastSeq < seq &&
      sealing.recipientsPem === recipientsPem &&
      nowMs - sealing.madeAtMs < this.#options.keyRotationMs
    );
  }

  #newSealing({ epoch }: FrameHeader, recipientsPem: string, nowMs: number): Sealing {
    const key = newContentKey((byteCount) => this.#deps.random.bytes(byteCount));
    return {
      key,
      envelope: sealEnvelope(contentKeyToBytes(key), parseRecipients(recipientsPem)),
      recipientsPem,
      epochNonce: epoch.nonce,
      madeAtMs: nowMs,
      lastSeq: 0,
      announcedAtMs: nowMs,
    };
  }

  #signOf(
    { stream, epoch }: FrameHeader,
    records: readonly FrameRecord[],
  ): ((signedBytes: Uint8Array) => Uint8Array) | undefined {
    const { keys } = this.#deps;
    const opened = records.find((record) => record.kind === 'epoch-opened');
    const isBegun = opened === undefined;
    if (!isBegun && !this.#options.signs) return undefined;
    const key = isBegun
      ? keys.find(stream, epoch)
      : keys.keyOf(stream, epoch, opened.predecessor?.epoch ?? null);
    if (key === undefined) return undefined;
    if (records.some(({ kind }) => kind === 'epoch-closed')) keys.retire(stream, epoch);
    return (signedBytes) => signFrame(signedBytes, key);
  }
}

function isLifeCycle({ kind }: FrameRecord): boolean {
  return kind === 'epoch-opened' || kind === 'epoch-closed';
}
