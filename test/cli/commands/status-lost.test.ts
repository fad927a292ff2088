import { Hono } from 'hono';
import { expect, test } from 'vitest';

import { withInstance } from '../../support/served-instance.ts';

test('status shows which frames are lost, why, and whose word that is', async () => {
  const range = { reason: 'log-full', declaredBy: 'west-primary' };
  const lost = [
    { ...range, fromSeq: 1, throughSeq: 1_500, isSigned: true },
    { ...range, fromSeq: 2_000, throughSeq: 2_000, isSigned: false },
    {
      fromSeq: 2_100,
      throughSeq: 2_100,
      reason: 'chain-broken',
      declaredBy: null,
      isSigned: false,
    },
  ];
  const epoch = { number: 3, reason: 'created', end: 'open', headSeq: 3_000, gaps: [] };
  const epochs = [{ ...epoch, missingFrames: 0, lostFrames: 1_502, lost }];
  const vm = { vm: 'vm1', state: 'running', reportedAtUs: null, watermarkUs: null };
  const status = { stages: {}, vms: [{ ...vm, epochs, losses: [] }] };
  const primarySite = new Hono().get('/v1/status', (context) => context.json(status));
  await withInstance({ primarySite }, async (run) => {
    const { lines } = await run(['status']);
    const from = lines.findIndex((line) => line.startsWith('LOST'));
    expect(lines.slice(from, from + 4).map((line) => line.split(/ {2,}/))).toEqual([
      ['LOST', 'EPOCH', 'SEQ', 'FRAMES', 'REASON', 'DECLARED BY', 'VERIFIED'],
      ['vm1', '3', '1-1500', '1,500', 'log-full', 'west-primary', 'yes'],
      ['vm1', '3', '2000', '1', 'log-full', 'west-primary', 'no'],
      ['vm1', '3', '2100', '1', 'chain-broken', 'this site', 'yes'],
    ]);
  });
});
