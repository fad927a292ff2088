import { createPublicKey } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { silentLog } from '../../common/runtime/log.ts';
import { newEpochKey } from '../../common/signing/epoch-key.ts';
import { signStatement, verifyStatement } from '../../common/signing/key-statement.ts';
import { openDatabase, type Database } from '../../common/sqlite/database.ts';
import { vmDescriptorSchema } from '../../common/wire/vm-descriptor.ts';
import { buildHostCollector } from '../../host-collector/build-host-collector.ts';
import { hostCollectorConfigSchema } from '../../host-collector/config.ts';
import type { EpochKeyStore } from '../../host-collector/origin/epoch-key-store.ts';
import { mqttStreams } from '../../host-collector/origin/mqtt-streams.ts';
import { buildPrimarySite } from '../../primary-site/build-primary-site.ts';
import { primarySiteConfigSchema } from '../../primary-site/primary-site-config.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/external-broker.ts';
import { opensslIdentity } from '../support/openssl.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/** A name that is in each measurement of the probe, and in nothing else. */
const canary = 'usage_ratio';

function framesOfLog(path: string): readonly Uint8Array[] {
  using database = new LogDatabase(path);
  return database.frames();
}

/** The stream log alone: cursors and engine state beside it are the host's own, and in the clear. */
class LogDatabase implements Disposable {
  readonly #database: Database;

  constructor(path: string) {
    this.#database = openDatabase(path);
  }

  frames(): readonly Uint8Array[] {
    return this.#database
      .prepare<[], { bytes: Uint8Array }>('SELECT bytes FROM stream_log_frames')
      .all()
      .map(({ bytes }) => bytes);
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}

describe('a collector and a primary site with a key of its own', () => {
  test('values arrive sealed, signed and verified; the stream log of the source holds none of them in the clear', async () => {
    using directory = temporaryDirectory();
    const identity = opensslIdentity(directory.path, 'reader', 'rsa-2048');
    const mqttPort = await freePort();
    const source = join(directory.path, 'source');
    let epochKeys: EpochKeyStore | undefined;
    const collector = buildHostCollector(
      hostCollectorConfigSchema.parse({
        dataDirectory: source,
        mqttPort,
        signFrames: true,
        statusIntervalMs: 100,
        probeIntervalMinMs: 20,
      }),
      {
        log: silentLog,
        makeStreams: (deps, config) => {
          const streams = mqttStreams(deps, config);
          ({ epochKeys } = streams);
          return streams;
        },
      },
    );
    const primary = buildPrimarySite(
      primarySiteConfigSchema.parse({
        dataDirectory: join(directory.path, 'primary'),
        controlSocket: join(directory.path, 'primary.sock'),
        mqttUrl: `mqtt://127.0.0.1:${mqttPort}`,
        keysDirectory: keysDirectoryOf(directory.path, identity.keyPem, identity.certificatePem),
        signatures: 'required',
      }),
    );
    const descriptor = vmDescriptorSchema.parse({
      apiVersion: 'isobar/v1',
      kind: 'VirtualMachine',
      id: 'vm1',
      probe: { kind: 'machine' },
      monitoring: {
        specifiers: [{ id: 'infra', dataPoints: 'infra/cpu/*', monitoringIntervalMs: 50 }],
      },
      primarySitePublicKey: identity.certificatePem,
    });
    await collector.service.start();
    await primary.service.start();
    try {
      await collector.vms.add(descriptor);
      const { store } = primary;
      const readings = () => store.reader.query({ pattern: `infra/cpu/${canary}` }, 100).readings;
      // Nothing is taken before the key of the epoch was stated.
      await eventually(() => store.integrity().length > 0, { timeoutMs: 20_000 });
      expect(store.integrity().every(({ finding }) => finding === 'key-not-stated')).toBe(true);
      expect(readings()).toEqual([]);
      const site = newEpochKey();
      for (const claim of epochKeys?.claims() ?? []) {
        const statement = signStatement(claim, site.privateKey);
        const verified = verifyStatement(statement, createPublicKey(site.privateKey));
        expect(verified.ok && store.acceptKeyStatement(verified.claim)).toBe(true);
      }
      await eventually(() => readings().length > 3, { timeoutMs: 20_000 });
      expect(store.waitingFrames()).toBe(0);
      expect(store.counters.failed).toBe(0);
      expect(store.integrity().every(({ finding }) => finding === 'key-not-stated')).toBe(true);
    } finally {
      await primary.service.stop();
      await collector.service.stop();
    }
    const frames = framesOfLog(join(source, 'collector.db'));
    expect(frames.length).toBeGreaterThan(3);
    expect(frames.filter((bytes) => Buffer.from(bytes).includes(canary))).toEqual([]);
  });
});

function keysDirectoryOf(directory: string, keyPem: string, certificatePem: string): string {
  // The identity's own directory: reader.key is for its owner alone, as openssl makes it.
  writeFileSync(join(directory, 'reader.key'), keyPem, { mode: 0o600 });
  writeFileSync(join(directory, 'reader.crt'), certificatePem);
  return directory;
}
