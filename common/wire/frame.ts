import type { Delivery } from './delivery.ts';
import type { VmId } from './vm-descriptor.ts';

/** A VM's two streams: what was measured, and that it is alive. */
export const streamKinds = ['data', 'status'] as const;
export type StreamKind = (typeof streamKinds)[number];

export interface StreamId {
  readonly vm: VmId;
  readonly kind: StreamKind;
}

/**
 * One placement of a VM on one host with one database generation and one writer. Numbers rise along a stream;
 * `nonce` tells two epochs apart that were given the same number by mistake (a cloned host).
 */
export interface Epoch {
  readonly number: number;
  /** 8 random bytes as 16 hex digits. */
  readonly nonce: string;
}

/** What identifies a frame and ties it to the one before. */
export interface FrameHeader {
  readonly stream: StreamId;
  readonly epoch: Epoch;
  /** From 1 in each epoch, without gaps. */
  readonly seq: number;
  /** SHA-256 of the whole previous frame of the epoch; 32 zero bytes for the first. */
  readonly previousHash: Uint8Array;
  /** The origin's wall time when the frame was made, µs of the epoch. */
  readonly producedAtUs: number;
}

/** The beginning of an epoch, first record of its first frame. */
export interface EpochOpened {
  readonly kind: 'epoch-opened';
  readonly predecessor: { readonly epoch: Epoch; readonly lastSeq: number | null } | null;
  /** Generation id of the guest's databases; null while no guest has been heard. */
  readonly generation: string | null;
  readonly reason: 'created' | 'generation-changed' | 'moved' | 'store-lost' | 'signing-changed';
}

/** The orderly end of an epoch, last record of its last frame, whose seq it repeats. */
export interface EpochClosed {
  readonly kind: 'epoch-closed';
  readonly lastSeq: number;
}

/** Rows that the guest or the log had to give up, counted where the exact ones are unknown. Never silence. */
export interface Lost {
  readonly kind: 'lost';
  readonly where: 'guest-store' | 'stream-log';
  /** Of the guest's rows, or of a log's frames. */
  readonly count: number;
  readonly fromSeq: number | null;
  readonly throughSeq: number | null;
  readonly reason: string;
}

export type VmState = 'running' | 'suspended' | 'silent' | 'dead' | 'unknown';

/** What the status stream says, at least every T. */
export interface Status {
  readonly kind: 'status';
  readonly vmState: VmState;
  /** Where the data stream stands; seq 0 before its first frame. */
  readonly head: { readonly epoch: Epoch; readonly seq: number } | null;
  /** Nothing older than this will come; null before the guest was heard. */
  readonly watermarkUs: number | null;
}

/** What a frame can carry. The status stream carries `status` and the deliveries of visible data points. */
export type FrameRecord =
  | EpochOpened
  | EpochClosed
  | Lost
  | Status
  | { readonly kind: 'delivery'; readonly delivery: Delivery };

export interface Frame {
  readonly header: FrameHeader;
  readonly records: readonly FrameRecord[];
}

/**
 * A frame as it is stored and sent: the unit of sequence, signature, storage, query and duplicate removal.
 * `bytes` is the truth; the header is there so that nobody decodes twice. Relays never make one.
 */
export interface EncodedFrame {
  readonly header: FrameHeader;
  readonly bytes: Uint8Array;
}
