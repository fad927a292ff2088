import { createPublicKey } from 'node:crypto';

import { migrateStreamLog } from '../../broker/log/stream-log-schema.ts';
import { StreamLog } from '../../broker/log/stream-log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { newEpochKey } from '../../common/signing/epoch-key.ts';
import {
  signStatement,
  verifyStatement,
  type VerifiedClaim,
} from '../../common/signing/key-statement.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import type { EncodedFrame, FrameRecord } from '../../common/wire/frame.ts';
import { EpochKeyStore } from '../../host-collector/origin/epoch-key-store.ts';
import { OriginProtector } from '../../host-collector/origin/origin-protector.ts';
import { ManualClock } from './manual-clock.ts';
import { dataStream, sampleStartUs } from './sample-frames.ts';

/** A source site's log of vm1 that seals and signs as the collector does. */
export class ProtectedStream {
  readonly stream = dataStream('vm1');
  readonly clock = new ManualClock(sampleStartUs);
  readonly #database = openDatabase(':memory:');
  readonly #keys: EpochKeyStore;
  readonly #protector: OriginProtector;
  readonly #log: StreamLog;
  /** The signing key of a site, as neighbours pin it. */
  readonly #siteKey = newEpochKey();

  constructor(options: { readonly signs: boolean; readonly recipientsPem?: string }) {
    migrateStreamLog(this.#database);
    const { clock } = this;
    const random = new SystemRandom();
    this.#keys = new EpochKeyStore(this.#database);
    this.#protector = new OriginProtector(
      { clock, random, keys: this.#keys },
      { signs: options.signs, keyRotationMs: 3_600_000, keyRepeatMs: 60_000 },
    );
    this.#protector.setRecipients(this.stream.vm, options.recipientsPem);
    this.#log = new StreamLog({
      database: this.#database,
      clock,
      random,
      protector: this.#protector,
    });
  }

  open(): EncodedFrame {
    const opening = { generation: null, reason: 'created' } as const;
    return this.#database.transaction(() => this.#log.openEpoch(this.stream, opening).frame)();
  }

  append(...records: readonly FrameRecord[]): EncodedFrame {
    return this.#database.transaction(() => this.#log.append(this.stream, records))();
  }

  /** Keys of all epochs, as they reach a neighbour that has verified them. */
  statements(): readonly VerifiedClaim[] {
    const publicKey = createPublicKey(this.#siteKey.privateKey);
    return this.#keys.claims().map((claim) => {
      const outcome = verifyStatement(signStatement(claim, this.#siteKey.privateKey), publicKey);
      if (!outcome.ok) throw new Error(outcome.code);
      return outcome.claim;
    });
  }
}
