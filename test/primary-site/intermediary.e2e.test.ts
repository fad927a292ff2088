import { createPrivateKey, X509Certificate } from 'node:crypto';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { SiteAuthority } from '../../common/identity/site-authority.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { newEpochKey, signFrame } from '../../common/signing/epoch-key.ts';
import { signStatement } from '../../common/signing/key-statement.ts';
import type { LossClaim } from '../../common/signing/loss-declaration.ts';
import { LossSigner, type DeclaredLosses } from '../../common/signing/loss-signer.ts';
import { decodeFrame, encodeFrame, firstPreviousHash } from '../../common/wire/frame-codec.ts';
import type { Epoch, Frame } from '../../common/wire/frame.ts';
import { eventually } from '../support/eventually.ts';
import { canariesIn } from '../support/plaintext-forms.ts';
import { dataStream, rowRecord, sampleStartUs } from '../support/sample-frames.ts';
import { SignedChain } from '../support/signed-chain.ts';
import { trustSite } from '../support/sites.ts';

const stream = dataStream('vm1');
const patience = { timeoutMs: 20_000 };
const row = (value: number) => rowRecord('users', sampleStartUs + value, [value]);

let chain: SignedChain;

beforeEach(async () => {
  chain = await SignedChain.start();
});

afterEach(async () => {
  await chain.close();
});

const ascending = (): readonly number[] =>
  chain
    .values()
    .map(Number)
    .toSorted((a, b) => a - b);

async function arrived(...expected: readonly number[]): Promise<void> {
  await eventually(() => ascending().length >= expected.length, patience);
  expect(ascending()).toEqual(expected);
}

/** Value 1, which arrived; what follows is in the same epoch. */
async function startWithOne(): Promise<Epoch> {
  await chain.startPrimary();
  const epoch = chain.origin.openEpoch(stream);
  chain.origin.append(stream, [row(1)]);
  await arrived(1);
  return epoch;
}

/** Of a frame that is not sealed. */
function decoded(bytes: Uint8Array): { readonly frame: Frame; readonly signature: Uint8Array } {
  const outcome = decodeFrame(bytes);
  if (!outcome.ok) throw new Error(outcome.problem.rule);
  return outcome;
}

function forgedFrame(epoch: Epoch, seq: number, value: number, key = newEpochKey()): Uint8Array {
  const header = {
    stream,
    epoch,
    seq,
    previousHash: firstPreviousHash,
    producedAtUs: sampleStartUs,
  };
  return encodeFrame(
    { header, records: [row(value)] },
    { sign: (signed) => signFrame(signed, key) },
  );
}

describe('an intermediary that is not honest, and what it leads to at the primary site', () => {
  test('alters frames: refused as forged; the true ones are asked for and stored', async () => {
    await startWithOne();
    chain.intermediary.frames = (frames) =>
      frames.map((bytes) => {
        const { frame, signature } = decoded(bytes);
        return encodeFrame({ ...frame, records: [row(666)] }, { sign: () => signature });
      });
    chain.origin.append(stream, [row(2)]);
    await chain.found('forged');
    expect(chain.values()).toEqual([1]);
    chain.intermediary.frames = (frames) => frames;
    chain.origin.append(stream, [row(3)]);
    await arrived(1, 2, 3);
    expect(chain.findings()).toEqual(['forged']);
  });

  test('takes signatures off: refused as unsigned; the signed ones are asked for and stored', async () => {
    await startWithOne();
    chain.intermediary.frames = (frames) =>
      frames.map((bytes) => encodeFrame(decoded(bytes).frame));
    chain.origin.append(stream, [row(2)]);
    await chain.found('unsigned');
    chain.intermediary.frames = (frames) => frames;
    await arrived(1, 2);
    expect(chain.findings()).toEqual(['unsigned']);
  });

  test('makes up frames: refused as forged, and no gap shows in their name', async () => {
    const epoch = await startWithOne();
    chain.intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 1_000, 666)];
    chain.origin.append(stream, [row(2)]);
    await chain.found('forged');
    await arrived(1, 2);
    expect(chain.primary.store.vmStatuses()[0]?.epochs[0]).toMatchObject({ missingFrames: 0 });
  });

  test('makes up an epoch: nothing of it is taken, as no key was stated', async () => {
    await startWithOne();
    const epoch = { number: 2, nonce: 'ffffffffffffffff' };
    chain.intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 1, 666)];
    chain.origin.append(stream, [row(2)]);
    await chain.found('key-not-stated');
    await arrived(1, 2);
    expect(chain.findings()).toEqual(['key-not-stated']);
  });

  test('replays frames: each is stored once', async () => {
    await startWithOne();
    const heard: Uint8Array[] = [];
    chain.intermediary.frames = (frames) => {
      heard.push(...frames);
      return [...frames, ...heard];
    };
    for (const value of [2, 3, 4]) chain.origin.append(stream, [row(value)]);
    await arrived(1, 2, 3, 4);
    expect(chain.findings()).toEqual([]);
    expect(chain.primary.consumer.counters.dropped).toBeGreaterThan(0);
  });

  test('exchanges places of frames: refused as forged; each is stored in its own place', async () => {
    await startWithOne();
    chain.intermediary.frames = (frames) =>
      frames.map((bytes) => {
        const { frame, signature } = decoded(bytes);
        const header = { ...frame.header, seq: frame.header.seq ^ 1 };
        return encodeFrame({ ...frame, header }, { sign: () => signature });
      });
    for (const value of [2, 3, 4]) chain.origin.append(stream, [row(value)]);
    await chain.found('forged');
    expect(chain.values()).toEqual([1]);
    chain.intermediary.frames = (frames) => frames;
    await arrived(1, 2, 3, 4);
  });

  test('delivers late and out of order: stored, nothing found', async () => {
    await startWithOne();
    const held: Uint8Array[] = [];
    chain.intermediary.frames = (frames) => {
      held.push(...frames);
      return held.length < 3 ? [] : held.splice(0).toReversed();
    };
    for (const value of [2, 3, 4, 5]) chain.origin.append(stream, [row(value)]);
    await arrived(1, 2, 3, 4, 5);
    expect(chain.findings()).toEqual([]);
  });

  test('withholds a frame: a gap that shows as missing, asked for until it comes', async () => {
    await startWithOne();
    chain.intermediary.frames = (frames) =>
      frames.filter((bytes) => decoded(bytes).frame.header.seq !== 3);
    for (const value of [2, 3]) chain.origin.append(stream, [row(value)]);
    await arrived(1, 3);
    expect(chain.primary.store.vmStatuses()[0]?.epochs[0]).toMatchObject({
      missingFrames: 1,
      lostFrames: 0,
    });
    chain.intermediary.frames = (frames) => frames;
    await arrived(1, 2, 3);
    expect(chain.findings()).toEqual([]);
  });

  test('withholds key statements: nothing is taken and key-not-stated; when they come nothing was lost', async () => {
    chain.intermediary.statements = () => undefined;
    await chain.startPrimary();
    chain.origin.openEpoch(stream);
    for (const value of [1, 2, 3]) chain.origin.append(stream, [row(value)]);
    await chain.found('key-not-stated');
    expect(chain.values()).toEqual([]);
    chain.intermediary.statements = (message) => message;
    await arrived(1, 2, 3);
    expect(chain.findings()).toEqual([]);
  });

  test('hands on the statements of who is behind it: refused, the certificate is of no neighbour', async () => {
    const pair = chain.trust.source.signing();
    const certificate = new X509Certificate(pair?.cert ?? '').raw.toString('base64');
    chain.intermediary.statements = (message) => ({ ...message, certificate });
    await chain.startPrimary();
    chain.origin.openEpoch(stream);
    chain.origin.append(stream, [row(1)]);
    await chain.found('key-not-stated');
    expect(chain.values()).toEqual([]);
  });

  test('states another key later: key-contradicting, and the first one stays', async () => {
    const epoch = await startWithOne();
    const own = newEpochKey();
    restateWith(own);
    chain.intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 9, 666, own)];
    await chain.found('key-contradicting');
    chain.origin.append(stream, [row(2)]);
    await chain.found('forged');
    await arrived(1, 2);
    expect(chain.findings()).toEqual(['forged', 'key-contradicting']);
  });

  test('states a key of its own while it is exchanged: believed; only the contract covers that', async () => {
    const own = newEpochKey();
    restateWith(own);
    await chain.startPrimary();
    const epoch = chain.origin.openEpoch(stream);
    chain.intermediary.frames = (frames) => [...frames, forgedFrame(epoch, 1, 666, own)];
    chain.origin.append(stream, [row(1)]);
    await eventually(() => chain.values().includes(666), patience);
    // What shows is that the true frames do not fit; an intermediary that drops them shows nothing.
    await chain.found('forged');
    expect(chain.findings()).toEqual(['forged']);
  });
});

/** The intermediary states, under its own signature, that `own` is the key of whatever epoch. */
function restateWith(own: ReturnType<typeof newEpochKey>): void {
  const ownKey = createPrivateKey(chain.trust.relay.signing()?.key ?? '');
  chain.intermediary.statements = (message) => ({
    ...message,
    statements: message.statements.map(({ stream: stated, epoch, predecessor }) =>
      signStatement({ stream: stated, epoch, predecessor, publicKey: own.publicKey }, ownKey),
    ),
  });
}

const lostOf = () => chain.primary.store.vmStatuses()[0]?.epochs[0];

/** Frame 3 is withheld; `declare` makes what is said of it wherever an answer ends. */
async function withholdFrame3(
  declare: (claim: LossClaim) => readonly DeclaredLosses[],
): Promise<void> {
  const epoch = await startWithOne();
  chain.intermediary.frames = (frames) =>
    frames.filter((bytes) => decoded(bytes).frame.header.seq !== 3);
  const range = { stream, epoch, fromSeq: 3, throughSeq: 3 };
  const claim: LossClaim = { ...range, reason: 'log-full', declaredAtUs: sampleStartUs };
  chain.intermediary.control = (message) => {
    if (message.kind !== 'range-end') return [message];
    const { v, session } = message;
    const lost = [{ fromSeq: 3, throughSeq: 3, reason: 'it was nowhere' }];
    const losses = declare(claim).map(
      (declared) => ({ v, session, kind: 'losses', ...declared }) as const,
    );
    return [...losses, { ...message, lost }];
  };
  for (const value of [2, 3]) chain.origin.append(stream, [row(value)]);
}

describe('an intermediary that declares lost what it does not want to deliver', () => {
  test('stays visible: whose word it was, with the signature; what comes after all is stored', async () => {
    const signer = new LossSigner(chain.trust.relay);
    await withholdFrame3((claim) => [signer.declare([claim])]);
    await eventually(() => lostOf()?.lostFrames === 1, patience);
    expect(lostOf()).toMatchObject({
      missingFrames: 0,
      lost: [{ fromSeq: 3, throughSeq: 3, reason: 'log-full', declaredBy: 'b', isSigned: true }],
    });
    const [evidence] = chain.primary.store.lossEvidence(10);
    const own = new X509Certificate(chain.trust.relay.signing()?.cert ?? '');
    expect(evidence?.certificate).toBe(own.raw.toString('base64'));
    expect(evidence).toMatchObject({ relation: 'b', fromSeq: 3, throughSeq: 3, returnedCount: 0 });
    // It delivers after all, to a reader that asks once more.
    chain.intermediary.frames = (frames) => frames;
    chain.intermediary.control = (message) => [message];
    await chain.primary.service.stop();
    await chain.startPrimary();
    await arrived(1, 2, 3);
    expect(lostOf()).toMatchObject({ missingFrames: 0, lostFrames: 0, lost: [] });
    // What it said stays on record.
    expect(chain.primary.store.lossEvidence(10)).toMatchObject([{ returnedCount: 1 }]);
    expect(chain.findings()).toEqual([]);
  });

  test('without a signature it does not count: loss-unsigned, and the frame stays missing until it comes', async () => {
    await withholdFrame3(() => []);
    await chain.found('loss-unsigned');
    expect(lostOf()).toMatchObject({ missingFrames: 1, lostFrames: 0 });
    chain.intermediary.frames = (frames) => frames;
    await arrived(1, 2, 3);
  });

  test('under a signature of who is behind it, or of nobody, it does not count: loss-forged', async () => {
    const behind = new LossSigner(chain.trust.source);
    const own = new LossSigner(chain.trust.relay);
    await withholdFrame3((claim) => {
      const declared = own.declare([claim]);
      const losses = declared.losses.map((loss) => ({ ...loss, throughSeq: 9 }));
      return [behind.declare([claim]), { ...declared, losses }];
    });
    await chain.found('loss-forged');
    expect(lostOf()).toMatchObject({ missingFrames: 1, lostFrames: 0 });
    chain.intermediary.frames = (frames) => frames;
    await arrived(1, 2, 3);
  });

  test('a declaration for frames that are stored is ignored', async () => {
    const epoch = await startWithOne();
    const range = { stream, epoch, fromSeq: 1, throughSeq: 4 };
    const claim: LossClaim = { ...range, reason: 'log-full', declaredAtUs: sampleStartUs };
    const declared = new LossSigner(chain.trust.relay).declare([claim]);
    let isSaid = false;
    chain.intermediary.control = (message) => {
      const { v, session } = message;
      if (isSaid || message.kind !== 'heads') return [message];
      isSaid = true;
      return [{ v, session, kind: 'losses', ...declared }, message];
    };
    await eventually(() => lostOf()?.lostFrames === 2, patience);
    expect(lostOf()?.lost).toMatchObject([{ fromSeq: 3, throughSeq: 4, declaredBy: 'b' }]);
    // Those that were not there yet withdraw it as they come.
    for (const value of [2, 3]) chain.origin.append(stream, [row(value)]);
    await arrived(1, 2, 3);
    expect(lostOf()).toMatchObject({ lostFrames: 0, missingFrames: 0 });
  });
});

describe('an intermediary that is honest', () => {
  test('says nothing of the site behind it: no name, address, certificate, key or signature', async () => {
    await startWithOne();
    const ofSource = chain.trust.source.signing();
    const leaf = new X509Certificate(chain.trust.source.material().cert);
    const signing = new X509Certificate(ofSource?.cert ?? '');
    const canaries = {
      name: 'canary-source-site',
      address: 'canary-host',
      signingCertificate: signing.raw.subarray(-64),
      signingKey: signing.publicKey.export({ type: 'spki', format: 'der' }).subarray(-64),
      leafKey: leaf.publicKey.export({ type: 'spki', format: 'der' }).subarray(-64),
      leafSerial: leaf.serialNumber,
    };
    const all = Buffer.concat(
      chain.intermediary.sent.flatMap(({ topic, payload }) => [Buffer.from(topic), payload]),
    );
    expect(canariesIn(all, canaries)).toEqual([]);
    // The search finds what is there.
    const own = new X509Certificate(chain.trust.relay.signing()?.cert ?? '').raw;
    expect(canariesIn(all, { own: own.subarray(-64) })).toEqual(['own']);
  });

  test('keeps statements over a restart: a reader that comes when the source is gone has its key', async () => {
    chain.origin.openEpoch(stream);
    for (const value of [1, 2]) chain.origin.append(stream, [row(value)]);
    await eventually(() => chain.relay.relay.log.epochs()[0]?.lastSeq === 3, patience);
    await chain.origin.close();
    await chain.sourceBroker.stop();
    await chain.relay[Symbol.asyncDispose]();
    await chain.startRelay();
    await chain.startPrimary();
    await arrived(1, 2);
    expect(chain.findings()).toEqual([]);
  });

  test('signs anew when its authority rotates: the next epoch arrives without a pause of trust', async () => {
    await startWithOne();
    const clock = new SystemClock();
    const authority = new SiteAuthority({ clock }, chain.directories.relay);
    const before = chain.intermediary.certificates.at(-1);
    await authority.prepareAuthority();
    await trustSite(clock, chain.directories.primary, chain.directories.relay, 'b', 'producer');
    await authority.activateAuthority();
    await chain.trust.relay.reload();
    await eventually(() => chain.intermediary.certificates.at(-1) !== before, patience);
    chain.origin.openEpoch(stream);
    chain.origin.append(stream, [row(2)]);
    await arrived(1, 2);
    expect(chain.findings()).toEqual([]);
  });
});
