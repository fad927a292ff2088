import { randomBytes, randomInt } from 'node:crypto';

/** Chance as a dependency, so that a test can replay a run from its seed. */
export interface Random {
  /** `byteCount` unpredictable bytes, fit for identities and keys. */
  bytes(byteCount: number): Uint8Array;
  /** A number in [0, 1). */
  uniform(): number;
}

const uniformSteps = 2 ** 47;

/** The operating system's random source. */
export class SystemRandom implements Random {
  bytes(byteCount: number): Uint8Array {
    return randomBytes(byteCount);
  }

  uniform(): number {
    return randomInt(uniformSteps) / uniformSteps;
  }
}
