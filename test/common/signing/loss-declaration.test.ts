import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';

import { assert, base64String, property, stringMatching } from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { FileTlsIdentity } from '../../../common/identity/file-tls-identity.ts';
import { siteFiles } from '../../../common/identity/site-files.ts';
import type { LossClaim, LossDeclaration } from '../../../common/signing/loss-declaration.ts';
import { LossJudge } from '../../../common/signing/loss-judge.ts';
import { LossSigner, type DeclaredLosses } from '../../../common/signing/loss-signer.ts';
import {
  controlMessageBytesMax,
  controlMessageVersion,
  decodeDownstream,
  encodeControl,
  lossesMax,
} from '../../../common/wire/control-message.ts';
import { lossReasonOf, lossReasons, lossReasonTexts } from '../../../common/wire/loss-reason.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { Federation } from '../../support/federation.ts';
import { dataStream, sampleEpoch } from '../../support/sample-frames.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';

const claim: LossClaim = {
  stream: dataStream('vm1'),
  epoch: sampleEpoch,
  fromSeq: 3,
  throughSeq: 9,
  reason: 'log-full',
  declaredAtUs: 1_700_000_000_000_000,
};

let federation: Federation;
let directories: { readonly a: string; readonly b: string; readonly c: string };
let sites: {
  readonly a: FileTlsIdentity;
  readonly b: FileTlsIdentity;
  readonly c: FileTlsIdentity;
};
let refused: string[];

beforeEach(async () => {
  federation = new Federation();
  const { parent } = federation;
  directories = {
    a: await makeSite(parent, 'site-a'),
    b: await makeSite(parent, 'site-b'),
    c: await makeSite(parent, 'site-c'),
  };
  await makeNeighbours('ab', directories.a, directories.b);
  await makeNeighbours('cb', directories.c, directories.b);
  sites = {
    a: await federation.identity(directories.a),
    b: await federation.identity(directories.b),
    c: await federation.identity(directories.c),
  };
  refused = [];
});

afterEach(async () => {
  await federation.close();
});

function noteRefused(_claim: LossClaim, refusal: string): void {
  refused.push(refusal);
}

/** What site b makes of what its neighbour a declares; c is another neighbour of b. */
function judgeOf(identity: FileTlsIdentity | undefined, isRequired: boolean): LossJudge {
  return new LossJudge({ identity, onRefused: noteRefused }, { relation: 'ab', isRequired });
}

const signedBy = (site: FileTlsIdentity, claims = [claim]): DeclaredLosses =>
  new LossSigner(site).declare(claims);

function altered(declared: DeclaredLosses, change: Partial<LossDeclaration>): DeclaredLosses {
  return { ...declared, losses: declared.losses.map((loss) => ({ ...loss, ...change })) };
}

describe('lost records between neighbours', () => {
  test('are signed by who declares them; what counts keeps declaration and certificate', () => {
    const declared = signedBy(sites.a);
    const [judged] = judgeOf(sites.b, true).judge(declared);
    expect(judged).toEqual({
      ...claim,
      relation: 'ab',
      proof: { certificate: declared.certificate, declaration: declared.losses[0] },
    });
    expect(refused).toEqual([]);
  });

  test('are refused where anything of them was changed: range, reason, time, epoch, stream', () => {
    const judge = judgeOf(sites.b, true);
    const changes: Partial<LossDeclaration>[] = [
      { fromSeq: 1 },
      { throughSeq: 10 },
      { reason: 'log-too-old' },
      { declaredAtUs: 0 },
      { epoch: { ...claim.epoch, number: claim.epoch.number + 1 } },
      { stream: dataStream('vm2') },
      { stream: { ...claim.stream, kind: 'status' } },
      { signature: 'AAAA' },
    ];
    for (const change of changes) {
      expect(judge.judge(altered(signedBy(sites.a), change))).toEqual([]);
    }
    expect(refused).toEqual(changes.map(() => 'loss-forged'));
  });

  test('are refused with the certificate of another neighbour, of TLS, of nobody, or another’s signature', () => {
    const own = signedBy(sites.a);
    const tls = new X509Certificate(sites.a.material().cert).raw.toString('base64');
    const wrong = [
      signedBy(sites.c),
      { ...own, certificate: tls },
      { ...own, certificate: 'AAAA' },
      { ...own, certificate: null },
      { ...signedBy(sites.c), certificate: own.certificate },
    ];
    for (const isRequired of [true, false]) {
      const judge = judgeOf(sites.b, isRequired);
      expect(wrong.flatMap((declared) => judge.judge(declared))).toEqual([]);
      expect(judge.counters.failed).toBe(wrong.length);
    }
    expect(new Set(refused)).toEqual(new Set(['loss-forged']));
  });

  test('of a neighbour that is trusted no longer are refused', async () => {
    writeFileSync(siteFiles(directories.b).pins('ab'), '');
    await sites.b.reload();
    expect(judgeOf(sites.b, true).judge(signedBy(sites.a))).toEqual([]);
    expect(refused).toEqual(['loss-forged']);
  });

  test('that nobody signed count only where no signature is required', () => {
    const unsigned = new LossSigner(undefined).declare([claim]);
    expect(unsigned).toMatchObject({ certificate: null, losses: [{ signature: null }] });
    expect(judgeOf(sites.b, true).judge(unsigned)).toEqual([]);
    expect(refused).toEqual(['loss-unsigned']);
    const lenient = judgeOf(undefined, false);
    expect(lenient.judge(unsigned)).toEqual([{ ...claim, relation: 'ab', proof: null }]);
    // Whoever can't verify a signature has none.
    expect(lenient.judge(signedBy(sites.a))).toMatchObject([{ proof: null }]);
    expect(judgeOf(undefined, true).judge(signedBy(sites.a))).toEqual([]);
  });

  test('never throw on arbitrary certificates and signatures', () => {
    const judge = judgeOf(sites.b, true);
    const own = signedBy(sites.a);
    assert(
      property(base64String(), stringMatching(/^[A-Za-z0-9_-]+$/), (text, signature) => {
        judge.judge({ ...own, certificate: text });
        judge.judge(altered(own, { signature }));
      }),
      { numRuns: 50 },
    );
    expect(judge.judge(own)).toHaveLength(1);
  });

  test('fit into a control message, as many as one may hold, with the longest names', () => {
    const longest: LossClaim = {
      stream: { vm: vmIdSchema.parse('v'.repeat(64)), kind: 'status' },
      epoch: { number: Number.MAX_SAFE_INTEGER, nonce: 'ffffffffffffffff' },
      fromSeq: Number.MAX_SAFE_INTEGER,
      throughSeq: Number.MAX_SAFE_INTEGER,
      reason: 'pruned-after-stored',
      declaredAtUs: Number.MAX_SAFE_INTEGER,
    };
    const declared = signedBy(
      sites.a,
      Array.from({ length: lossesMax }, () => longest),
    );
    const message = {
      v: controlMessageVersion,
      session: 's',
      kind: 'losses',
      ...declared,
    } as const;
    const bytes = encodeControl(message);
    expect(bytes.length).toBeLessThan(controlMessageBytesMax / 2);
    expect(decodeDownstream(bytes)).toEqual({ ok: true, message });
    expect(judgeOf(sites.b, true).judge(declared)).toHaveLength(lossesMax);
  });

  test('have a typed reason with a text; a text that nobody knows is unspecified', () => {
    for (const reason of lossReasons) expect(lossReasonOf(lossReasonTexts[reason])).toBe(reason);
    expect(lossReasonOf('the dog ate it')).toBe('unspecified');
  });
});
