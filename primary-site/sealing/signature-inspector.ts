import type { FrameInspector } from '../../broker/ports.ts';
import { isFrameSignature } from '../../common/signing/epoch-key.ts';
import { decodeFrameEnvelope, type FrameEnvelope } from '../../common/wire/frame-codec.ts';
import type { EncodedFrame } from '../../common/wire/frame.ts';
import type { Finding } from './integrity-records.ts';

/**
 * `off`: signatures are not looked at. `when-stated`: an epoch whose key was stated takes only frames signed by it, others
 * are taken as they come. `required`: nothing is taken without a signature by a stated key.
 */
export const signaturePolicies = ['off', 'when-stated', 'required'] as const;
export type SignaturePolicy = (typeof signaturePolicies)[number];

/** What the inspector asks of the store. */
export interface InspectedStore {
  /** The key stated for the frame's epoch. */
  readonly keyOf: (frame: EncodedFrame) => Parameters<typeof isFrameSignature>[2] | undefined;
  /** False when the body is sealed under a key that is known here and is not what was sealed. */
  readonly isAuthentic: (envelope: FrameEnvelope) => boolean;
  /** The bytes stored in the frame's place; undefined when they are gone. */
  readonly storedBytes: (frame: EncodedFrame) => Uint8Array | undefined;
  readonly note: (frame: EncodedFrame, finding: Finding) => void;
}

/** Looks at the signature of each frame before anything is made of it, and records what is wrong. */
export class SignatureInspector implements FrameInspector {
  readonly #store: InspectedStore;
  readonly #policy: SignaturePolicy;

  constructor(store: InspectedStore, policy: SignaturePolicy) {
    this.#store = store;
    this.#policy = policy;
  }

  inspect(frame: EncodedFrame): 'take' | 'not-yet' | 'refuse' {
    const decoded = decodeFrameEnvelope(frame.bytes);
    // What can't be decoded is kept as it is, unless something has to be verified.
    if (!decoded.ok) return this.#policy === 'required' ? this.#refuse(frame, 'forged') : 'take';
    const key = this.#policy === 'off' ? undefined : this.#store.keyOf(frame);
    const { signature, signedBytes } = decoded.envelope;
    if (key !== undefined) {
      if (signature.length === 0) return this.#refuse(frame, 'unsigned');
      return isFrameSignature(signature, signedBytes, key) ? 'take' : this.#refuse(frame, 'forged');
    }
    if (this.#policy === 'required') {
      if (signature.length === 0) return this.#refuse(frame, 'unsigned');
      this.#store.note(frame, 'key-not-stated');
      return 'not-yet';
    }
    if (!this.#store.isAuthentic(decoded.envelope)) return this.#refuse(frame, 'altered');
    return 'take';
  }

  repeated(frame: EncodedFrame): void {
    const stored = this.#store.storedBytes(frame);
    if (stored === undefined || Buffer.compare(stored, frame.bytes) === 0) return;
    this.#store.note(frame, 'contradicting');
  }

  #refuse(frame: EncodedFrame, finding: Finding): 'refuse' {
    this.#store.note(frame, finding);
    return 'refuse';
  }
}
