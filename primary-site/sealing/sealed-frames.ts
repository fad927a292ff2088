import { openEnvelope } from '../../common/sealing/cms-envelope.ts';
import {
  contentKeyFromBytes,
  openBody,
  type ContentKey,
} from '../../common/sealing/content-key.ts';
import type { RecipientKey } from '../../common/sealing/recipients.ts';
import type { Database } from '../../common/sqlite/database.ts';
import type { OpenedBody, SealedBody } from '../../common/wire/frame-codec.ts';

/** Content keys kept open; beyond it envelopes are opened again. */
const cachedMax = 1_024;
/** Envelopes kept of one epoch; a day of rotations each minute. Frames under further ones can't be opened. */
const envelopesPerEpochMax = 1_440;
/** Frames that wait for a key which may never come; beyond it the oldest go, as frames that retention removes. */
const waitingMax = 200_000;

/** A stored frame whose body could not be opened when it came. */
export interface WaitingFrame {
  readonly frameId: number;
  readonly epochId: number;
  readonly bytes: Uint8Array;
}

/**
 * The keys that bodies of frames are sealed under: taken out of the envelopes that frames bring, which are kept, so that
 * a private key that is put in place later still opens what came before. All calls within the store's transaction.
 */
export class SealedFrames {
  readonly #database: Database;
  readonly #keys: readonly RecipientKey[];
  readonly #cache = new Map<string, ContentKey>();
  /** Keys whose envelopes are not for us: not tried again until the next start. */
  readonly #shut = new Set<string>();

  constructor(database: Database, keys: readonly RecipientKey[]) {
    this.#database = database;
    this.#keys = keys;
  }

  /** Opens a body of the epoch, and keeps the envelope that it brings. */
  open(epochId: number, sealed: SealedBody): OpenedBody {
    const key = this.#keyOf(epochId, sealed);
    return key === undefined ? { ok: false, code: 'key-unknown' } : openBody(key, sealed);
  }

  keepEnvelope(epochId: number, { keyId, keyEnvelope }: SealedBody): void {
    if (keyEnvelope === null) return;
    this.#database
      .prepare<[number, Uint8Array, Uint8Array, number, number]>(
        `INSERT INTO content_keys SELECT ?, ?, ?
         WHERE (SELECT count(*) FROM content_keys WHERE epoch_id = ?) < ? ON CONFLICT DO NOTHING`,
      )
      .run(epochId, keyId, keyEnvelope, epochId, envelopesPerEpochMax);
  }

  /** The stored frame waits until its key is known. */
  wait(epochId: number, seq: number, keyId: Uint8Array): void {
    this.#database
      .prepare<[Uint8Array, number, number]>(
        'UPDATE frames SET waits_for_key = ? WHERE epoch_id = ? AND seq = ?',
      )
      .run(keyId, epochId, seq);
  }

  /** Frames of the epoch that waited for this key, in order of seq. They wait no more. */
  take(epochId: number, keyId: Uint8Array, countMax: number): readonly WaitingFrame[] {
    const frames = this.#database
      .prepare<[number, Uint8Array, number], WaitingFrame>(
        `SELECT frame_id AS frameId, epoch_id AS epochId, bytes FROM frames
         WHERE epoch_id = ? AND waits_for_key = ? ORDER BY seq LIMIT ?`,
      )
      .all(epochId, keyId, countMax);
    const release = this.#database.prepare<[number]>(
      'UPDATE frames SET waits_for_key = NULL WHERE frame_id = ?',
    );
    for (const { frameId } of frames) release.run(frameId);
    return frames;
  }

  /** Keys that some frame waits for although they can be had now. */
  openable(): readonly { readonly epochId: number; readonly keyId: Uint8Array }[] {
    return this.#database
      .prepare<[], { epochId: number; keyId: Uint8Array }>(
        `SELECT DISTINCT epoch_id AS epochId, waits_for_key AS keyId FROM frames
         WHERE waits_for_key IS NOT NULL LIMIT 1000`,
      )
      .all()
      .filter(({ epochId, keyId }) => this.#knownKey(epochId, keyId) !== undefined);
  }

  waitingCount(): number {
    return Number(
      this.#database
        .prepare('SELECT count(*) FROM frames WHERE waits_for_key IS NOT NULL')
        .pluck()
        .get(),
    );
  }

  /** Drops what waits beyond the bound, oldest first; returns how many. */
  prune(): number {
    const excess = this.waitingCount() - waitingMax;
    if (excess <= 0) return 0;
    return this.#database
      .prepare<[number]>(
        `DELETE FROM frames WHERE frame_id IN (SELECT frame_id FROM frames
         WHERE waits_for_key IS NOT NULL ORDER BY frame_id LIMIT ?)`,
      )
      .run(excess).changes;
  }

  /** What was learnt in a transaction that failed. */
  forget(): void {
    this.#cache.clear();
  }

  #keyOf(epochId: number, { keyId, keyEnvelope }: SealedBody): ContentKey | undefined {
    const known = this.#knownKey(epochId, keyId);
    if (known !== undefined || keyEnvelope === null) return known;
    return this.#unwrap(epochId, keyId, keyEnvelope);
  }

  #knownKey(epochId: number, keyId: Uint8Array): ContentKey | undefined {
    const cached = this.#cache.get(cacheName(epochId, keyId));
    if (cached !== undefined) return cached;
    const kept = this.#database
      .prepare<[number, Uint8Array], { envelope: Uint8Array }>(
        'SELECT envelope FROM content_keys WHERE epoch_id = ? AND key_id = ?',
      )
      .get(epochId, keyId);
    return kept === undefined ? undefined : this.#unwrap(epochId, keyId, kept.envelope);
  }

  #unwrap(epochId: number, keyId: Uint8Array, envelope: Uint8Array): ContentKey | undefined {
    const name = cacheName(epochId, keyId);
    if (this.#keys.length === 0 || this.#shut.has(name)) return undefined;
    const opened = openEnvelope(envelope, this.#keys);
    const key = opened.ok ? contentKeyFromBytes(opened.content) : undefined;
    if (key === undefined || Buffer.compare(key.keyId, keyId) !== 0) {
      if (this.#shut.size >= cachedMax) this.#shut.clear();
      this.#shut.add(name);
      return undefined;
    }
    if (this.#cache.size >= cachedMax) this.#cache.clear();
    this.#cache.set(name, key);
    return key;
  }
}

function cacheName(epochId: number, keyId: Uint8Array): string {
  return `${epochId} ${Buffer.from(keyId).toString('hex')}`;
}
