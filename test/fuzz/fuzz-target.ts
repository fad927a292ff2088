import type { FuzzRandom } from './fuzz-random.ts';

/** Something that takes bytes from outside, and what must hold for any of them. */
export interface FuzzTarget {
  /** As in `--only`; the folder of its kept inputs below test/fuzz/corpus/. */
  readonly name: string;
  /** Words of the format, for mutations. */
  readonly dictionary?: readonly string[];
  /** Default: 64 KiB. */
  readonly inputBytesMax?: number;
  /** What memory may grow by from an early measurement to the end, both after a collection; default: 48 MiB. */
  readonly growthBytesMax?: number;
  /** Starts what is fuzzed. */
  start(): Promise<RunningFuzzTarget>;
}

export interface RunningFuzzTarget {
  /** Valid inputs, which mutation begins with; each has to pass `run`. */
  readonly samples: readonly Uint8Array[];
  /** An input made from a structure rather than from bytes. */
  generate?(random: FuzzRandom): Uint8Array;
  /** Takes any bytes. Throws, or rejects, when something does not hold. */
  run(input: Uint8Array): void | Promise<void>;
  /** Rejects when a valid input is no longer served. */
  checkStillWorks(): Promise<void>;
  stop(): Promise<void>;
}
