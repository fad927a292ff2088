import { X509Certificate } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';

import { expect, test } from 'vitest';

import { sealEnvelope } from '../../../common/sealing/cms-envelope.ts';
import { parseRecipients } from '../../../common/sealing/recipients.ts';
import { eventually } from '../../support/eventually.ts';
import { mountAgent, type MountedAgent } from '../../support/mounted-agent.ts';
import { canariesIn } from '../../support/plaintext-forms.ts';
import { describeUnless, fuseObstacle } from '../../support/requirements.ts';
import { siteName, StreamChain, type ChainPart } from '../../support/stream-chain.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000 };
const savesMin = 20;

/** What an application saves, in the clear as far as it is concerned. */
const values = {
  file: 'CanaryFile0815',
  column: 'CanaryColumn4711',
  value: 'CanaryValue1234567',
  opaqueFile: 'CanaryOpaqueFile99',
  opaqueContent: 'CanaryOpaqueContent31337',
  sealedFile: 'CanarySealedFile77',
  sealedContent: 'CanarySealedContent2718',
};
/** All 53 bits are needed: no other form than that of a double holds it. */
const number = Math.PI * 1e5;
const numbers = {
  'number as text': String(number),
  'number, big-endian': doubleBytes(number, 'big'),
  'number, little-endian': doubleBytes(number, 'little'),
};
const planted = { ...values, ...numbers };

function doubleBytes(value: number, order: 'big' | 'little'): Buffer {
  const bytes = Buffer.alloc(8);
  if (order === 'big') bytes.writeDoubleBE(value);
  else bytes.writeDoubleLE(value);
  return bytes;
}

function save(agent: MountedAgent, readerKeyPem: string): void {
  const open = join(agent.mountPath, 'unencrypted', values.file);
  const encrypted = join(agent.mountPath, 'encrypted');
  writeFileSync(open, `${values.column},number\n${values.value},${number}\n`);
  writeFileSync(join(encrypted, values.opaqueFile), values.opaqueContent);
  const csv = Buffer.from(`content\n${values.sealedContent}\n`);
  writeFileSync(
    join(encrypted, values.sealedFile),
    sealEnvelope(csv, parseRecipients(readerKeyPem)),
  );
}

/** Everything that is in a directory, and what its files are called. */
function contentsOf(directory: string): Buffer {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  return Buffer.concat(
    entries.flatMap((entry) => [
      Buffer.from(entry.name),
      ...(entry.isFile() ? [readFileSync(join(entry.parentPath, entry.name))] : []),
    ]),
  );
}

/** What a site's machine could show: data directory with database, WAL and temporary files, site directory, output, arguments. */
function siteContents(chain: StreamChain, part: ChainPart): Buffer {
  return Buffer.concat([
    contentsOf(chain.dataDirectory(part)),
    contentsOf(chain.siteDirectory(part)),
    Buffer.from(chain.words(part)),
  ]);
}

/** By what a site could be known. All authorities have one subject; their keys tell them apart. */
function tracesOf(chain: StreamChain, part: ChainPart): Record<string, string | Uint8Array> {
  const identity = join(chain.siteDirectory(part), 'identity');
  const traces: Record<string, string | Uint8Array> = { name: siteName(part) };
  for (const stem of ['authority', 'leaf', 'signing']) {
    const certificate = new X509Certificate(readFileSync(join(identity, `${stem}.crt`)));
    const publicKey = certificate.publicKey.export({ type: 'spki', format: 'der' });
    traces[`${stem} key`] = publicKey.subarray(-64);
    traces[`${stem} signature`] = certificate.raw.subarray(-48);
    traces[`${stem} serial`] = Buffer.from(certificate.serialNumber, 'hex');
    traces[`${stem} fingerprint`] = certificate.fingerprint256.replaceAll(':', '').toLowerCase();
  }
  return traces;
}

/** Where a part's process and its SQLite have their temporary files: in its data directory, so that they are looked at. */
function temporaryFiles(directory: string, part: ChainPart): Record<string, string> {
  const path = join(directory, part, 'tmp');
  mkdirSync(path, { recursive: true });
  return { TMPDIR: path, SQLITE_TMPDIR: path };
}

/** What a listener on the wire has of all connections of a hop. */
function onTheWire(chain: StreamChain, hop: ChainPart): Buffer {
  const { recordings } = chain.hop(hop);
  return Buffer.concat(
    recordings.flatMap(({ fromClient, fromServer }) => [fromClient, fromServer]),
  );
}

/** Topics, bodies and messages of the handshake on a hop: what its receiver sent and was sent. */
function received(chain: StreamChain, hop: ChainPart): { by: Buffer; from: Buffer } {
  const transcripts = chain.transcripts(hop);
  return {
    by: Buffer.concat(transcripts.map(({ server }) => server)),
    from: Buffer.concat(transcripts.map(({ client }) => client)),
  };
}

/** Of the machine; every site of this test is on it, so only what neighbours may hold of each other is looked at. */
function machineTraces(): Record<string, string> {
  const machine = { bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() };
  // A name such as `vm` is in every database by chance.
  return hostname().length < 8 ? machine : { ...machine, hostName: hostname() };
}

const hops = ['relay-1', 'relay-2', 'reader'] as const;
const sources = { 'relay-1': 'collector', 'relay-2': 'relay-1', reader: 'relay-2' } as const;

describeUnless(
  fuseObstacle(),
  'canaries in a signed and sealed chain of two intermediaries',
  () => {
    test('no plaintext in relays, nothing of a site beyond the neighbour: on the wire, in messages, on disks, in logs', async () => {
      await using agent = await mountAgent({ synchronous: 'NORMAL' });
      using directory = temporaryDirectory();
      const parts = ['collector', ...hops] as const;
      const environments = Object.fromEntries(
        parts.map((part) => [part, temporaryFiles(directory.path, part)]),
      );
      const faults = { proxied: hops, records: true, environments };
      await using chain = new StreamChain(directory.path, 2, true, faults);
      await chain.start({
        apiVersion: 'isobar/v1',
        kind: 'VirtualMachine',
        id: 'vm1',
        guest: { channel: `unix:${join(dirname(agent.mountPath), 'channel.sock')}` },
        monitoring: {
          specifiers: [
            { id: 'kpi', dataPoints: 'kpi/**' },
            { id: 'opaque', dataPoints: 'encrypted/**' },
          ],
        },
      });
      const savesArrived = async (count: number): Promise<void> => {
        for (let saves = 0; saves < savesMin; saves += 1) save(agent, chain.readerKeyPem);
        await eventually(async () => {
          const readings = await chain.readings();
          const texts = readings.map(({ value }) => JSON.stringify(value));
          const arrived = (text: string) => texts.filter((each) => each.includes(text)).length;
          const opaque = Buffer.from(values.opaqueContent).toString('base64');
          return (
            arrived(values.value) >= count &&
            arrived(String(number)) >= count &&
            arrived(values.sealedContent) > 0 &&
            arrived(opaque) > 0
          );
        }, timeout);
      };
      await savesArrived(1);
      // Once more over a crash: journals that nobody cleaned up, and messages of recovery.
      await Promise.all([chain.crash('relay-1'), chain.crash('relay-2')]);
      await savesArrived(2);

      // The search finds what is there.
      const inTheGuest = canariesIn(contentsOf(agent.dataPath), planted);
      const notInTheGuest = ['sealedContent', 'number, little-endian'];
      expect(inTheGuest).toEqual(
        Object.keys(planted).filter((name) => !notInTheGuest.includes(name)),
      );
      for (const relay of ['relay-1', 'relay-2'] as const) {
        expect(canariesIn(siteContents(chain, relay), planted)).toEqual([]);
        const database = readFileSync(join(chain.dataDirectory(relay), 'relay.db'));
        const wal = readFileSync(join(chain.dataDirectory(relay), 'relay.db-wal'));
        expect(database.length + wal.length).toBeGreaterThan(0);
      }

      const atReader = siteContents(chain, 'reader');
      expect(canariesIn(atReader, { neighbour: siteName('relay-2') })).toEqual(['neighbour']);
      for (const part of ['collector', 'relay-1'] as const) {
        expect(canariesIn(atReader, tracesOf(chain, part))).toEqual([]);
      }
      expect(canariesIn(siteContents(chain, 'relay-2'), tracesOf(chain, 'collector'))).toEqual([]);
      expect(canariesIn(siteContents(chain, 'relay-1'), tracesOf(chain, 'reader'))).toEqual([]);
      expect(canariesIn(contentsOf(chain.dataDirectory('reader')), machineTraces())).toEqual([]);

      for (const hop of hops) {
        // Who only listens learns not even who speaks.
        const wire = onTheWire(chain, hop);
        expect(wire.length).toBeGreaterThan(10_000);
        expect(canariesIn(wire, planted)).toEqual([]);
        for (const part of parts) expect(canariesIn(wire, tracesOf(chain, part))).toEqual([]);

        const { by, from } = received(chain, hop);
        const neighbour = { name: siteName(sources[hop]), topic: `n/${hop}/down/` };
        expect(canariesIn(by, neighbour)).toEqual(['name', 'topic']);
        expect(canariesIn(Buffer.concat([by, from]), planted)).toEqual([]);
        expect(canariesIn(by, machineTraces())).toEqual([]);
        for (const part of parts.slice(0, parts.indexOf(sources[hop]))) {
          expect(canariesIn(by, tracesOf(chain, part))).toEqual([]);
        }
        for (const part of parts.slice(parts.indexOf(hop) + 1)) {
          expect(canariesIn(from, tracesOf(chain, part))).toEqual([]);
        }
      }
    });
  },
);
