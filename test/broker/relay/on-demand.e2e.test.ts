import { describe, expect, test } from 'vitest';

import { buildSiteIdentity } from '../../../common/identity/site-identity.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { siteServicesOf } from '../../../common/site-control/site-services.ts';
import { subscriptionEndpoint } from '../../../common/site-control/subscription-endpoint.ts';
import { vmIdSchema } from '../../../common/wire/vm-descriptor.ts';
import { eventually } from '../../support/eventually.ts';
import { RunningSites } from '../../support/running-sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000, pollMs: 50 };
const lifeMs = 3_000;
const onDemand = { direction: 'downstream', standing: false, onDemand: true };

function machine(id: string): object {
  return {
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id,
    probe: { kind: 'machine' },
    monitoring: {
      specifiers: [{ id: 'infra', dataPoints: 'infra/memory/*', monitoringIntervalMs: 200 }],
    },
  };
}

/** One signed request of `asker` for the data of a VM, in the place of its process. */
async function askFor(
  sites: RunningSites,
  [asked, asker]: readonly [string, string],
  { vm, hopCount }: { readonly vm: string; readonly hopCount: number },
): Promise<string> {
  using directory = temporaryDirectory();
  const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLog };
  const siteDirectory = sites.siteDirectory(asker);
  const site = buildSiteIdentity(deps, siteDirectory);
  const relation = `${asked}-${asker}`;
  const controlUrls = new Map([[relation, sites.controlUrl(asked)]]);
  const options = { siteDirectory, dataDirectory: directory.path, listen: undefined, controlUrls };
  const services = siteServicesOf({ ...deps, site }, options);
  await site.service.start();
  await services?.service.start();
  const streams = [{ vm: vmIdSchema.parse(vm), kind: 'data' as const }];
  const answer = await services?.clients
    .get(relation)
    ?.call(subscriptionEndpoint, { kind: 'on-demand', streams, hopCount });
  await services?.service.stop();
  await site.service.stop();
  return answer?.outcome ?? 'no answer';
}

/** Subscriptions of a relay, without their end. */
async function subscriptions(sites: RunningSites, name: string): Promise<string[]> {
  const status = await sites.relayStatus(name);
  return status.subscriptions.map(({ relation, vm, kind }) => `${relation} ${vm ?? '*'}/${kind}`);
}

/** Whether a reader has every frame that it knows of. */
async function isWhole(sites: RunningSites, name: string): Promise<boolean> {
  const { vms } = await sites.readerStatus(name);
  const epochs = vms.flatMap((vm) => vm.epochs);
  return (
    epochs.length > 0 && epochs.every((each) => each.missingFrames === 0 && each.lostFrames === 0)
  );
}

async function headOf(sites: RunningSites, name: string): Promise<number> {
  const { vms } = await sites.relayStatus(name);
  return vms.find(({ vm }) => vm === 'vm1')?.head ?? 0;
}

/** source -> near -> primary, standing; near -> far -> extra, on demand. */
class TwoIntermediaries {
  readonly sites: RunningSites;

  constructor(directory: string) {
    this.sites = new RunningSites(directory);
  }

  async start(): Promise<void> {
    const { sites } = this;
    await sites.add('source', 'collector');
    await sites.add('near', 'relay');
    await sites.add('far', 'relay');
    await sites.add('primary', 'reader');
    await sites.add('extra', 'reader');
    await sites.introduce('source', 'near');
    await sites.introduce('near', 'primary');
    await sites.introduce('near', 'far');
    await sites.introduce('far', 'extra');
    await sites.run('source', {
      mqttPort: 0,
      listen: sites.listen('source'),
      statusIntervalMs: 200,
      relations: ['source-near'],
    });
    await sites.run('near', {
      listen: sites.listen('near'),
      control: sites.control('near'),
      subscriptionLifeMs: lifeMs,
      relations: [
        { relation: 'source-near', direction: 'upstream', dial: sites.url('source') },
        { relation: 'near-primary', direction: 'downstream' },
        { relation: 'near-far', ...onDemand },
      ],
    });
    await sites.run('far', {
      listen: sites.listen('far'),
      control: sites.control('far'),
      subscriptionLifeMs: lifeMs,
      relations: [
        {
          relation: 'near-far',
          direction: 'upstream',
          dial: sites.url('near'),
          controlUrl: sites.controlUrl('near'),
          ask: 'on-demand',
        },
        { relation: 'far-extra', ...onDemand },
      ],
    });
    await sites.run('primary', {
      mqttUrl: sites.url('near'),
      relation: 'near-primary',
      jsonTopics: false,
    });
    for (const id of ['vm1', 'vm2']) {
      await eventually(() => sites.addVm('source', machine(id)), timeout);
    }
  }

  runExtra(config: object): Promise<void> {
    const { sites } = this;
    return sites.run('extra', {
      mqttUrl: sites.url('far'),
      controlUrl: sites.controlUrl('far'),
      relation: 'far-extra',
      jsonTopics: false,
      ...config,
    });
  }
}

describe('streams on demand through two sites, as processes', () => {
  test('an extra consumer gets the VM that it asked for and no other, both streams or one, until it ends that or stays away', async () => {
    using directory = temporaryDirectory();
    const chain = new TwoIntermediaries(directory.path);
    await using sites = chain.sites;
    await chain.start();
    await eventually(async () => (await sites.readerStatus('primary')).vms.length === 2, timeout);
    expect(await subscriptions(sites, 'near')).toEqual([]);

    await chain.runExtra({ ask: ['vm1'] });
    await eventually(async () => (await sites.readings('extra')).length > 0, timeout);
    for (const [name, relation] of [
      ['far', 'far-extra'],
      ['near', 'near-far'],
    ] as const) {
      const both = [`${relation} vm1/data`, `${relation} vm1/status`];
      expect((await subscriptions(sites, name)).toSorted()).toEqual(both);
    }
    expect(new Set((await sites.readings('extra')).map(({ vm }) => vm))).toEqual(new Set(['vm1']));
    expect((await sites.relayStatus('far')).vms.map(({ vm }) => vm)).toEqual(['vm1']);
    await eventually(() => isWhole(sites, 'extra'), timeout);
    // Who stays asks again in time.
    const [first] = (await sites.relayStatus('near')).subscriptions;
    await eventually(async () => {
      const [now] = (await sites.relayStatus('near')).subscriptions;
      return (now?.expiresAtUs ?? 0) > (first?.expiresAtUs ?? 0);
    }, timeout);

    // The status stream alone: the other one ends at both sites.
    await chain.runExtra({ ask: ['vm1'], kinds: ['status'] });
    await eventually(
      async () => String(await subscriptions(sites, 'near')) === 'near-far vm1/status',
      timeout,
    );
    const rises = async (): Promise<void> => {
      const goal = (await headOf(sites, 'near')) + 3;
      await eventually(async () => (await headOf(sites, 'near')) >= goal, timeout);
    };
    await rises();
    const head = await headOf(sites, 'far');
    await rises();
    expect(await headOf(sites, 'far')).toBe(head);

    await chain.runExtra({ ask: [] });
    for (const name of ['far', 'near']) {
      await eventually(async () => (await subscriptions(sites, name)).length === 0, timeout);
    }

    // Who never comes back is kept nothing for.
    await chain.runExtra({ ask: ['vm1'] });
    await eventually(async () => (await subscriptions(sites, 'near')).length === 2, timeout);
    await sites.kill('extra');
    for (const name of ['far', 'near']) {
      await eventually(async () => (await subscriptions(sites, name)).length === 0, timeout);
    }

    // A request is passed on with one hop more, until there are too many.
    const outcomes: string[] = [];
    for (const [vm, hopCount] of [
      ['vm9', 0],
      ['vm9', 15],
      ['vm1', 16],
      ['vm2', 0],
    ] as const) {
      outcomes.push(await askFor(sites, ['far', 'extra'], { vm, hopCount }));
    }
    expect(outcomes).toEqual(['not-authorized', 'hop-limit', 'hop-limit', 'subscribed']);
    expect((await subscriptions(sites, 'near')).toSorted()).toEqual(['near-far vm2/data']);
  });

  test('a ring of sites: what comes back is refused as a loop, on the stream and on request', async () => {
    using directory = temporaryDirectory();
    await using sites = new RunningSites(directory.path);
    await sites.add('source', 'collector');
    for (const name of ['a', 'b', 'c']) await sites.add(name, 'relay');
    await sites.add('extra', 'reader');
    await sites.introduce('source', 'a');
    const ring = [
      ['a', 'b'],
      ['b', 'c'],
      ['c', 'a'],
    ] as const;
    for (const [from, to] of [...ring, ['c', 'extra'] as const]) await sites.introduce(from, to);
    await sites.run('source', {
      mqttPort: 0,
      listen: sites.listen('source'),
      statusIntervalMs: 200,
      relations: ['source-a'],
    });
    const ends = { a: ['c', 'b'], b: ['a', 'c'], c: ['b', 'a'] } as const;
    const runRelay = (name: keyof typeof ends, onward: object): Promise<void> => {
      const [from, to] = ends[name];
      const relations = [
        {
          relation: `${from}-${name}`,
          direction: 'upstream',
          dial: sites.url(from),
          controlUrl: sites.controlUrl(from),
          ask: 'on-demand',
        },
        { relation: `${name}-${to}`, ...onward },
        ...(name === 'a'
          ? [{ relation: 'source-a', direction: 'upstream', dial: sites.url('source') }]
          : []),
        ...(name === 'c' ? [{ relation: 'c-extra', ...onDemand }] : []),
      ];
      const control = sites.control(name);
      return sites.run(name, { listen: sites.listen(name), control, relations });
    };
    await runRelay('a', onDemand);
    await runRelay('b', onDemand);
    // C sends A what A sent, unasked, as it might by mistake.
    await runRelay('c', { direction: 'downstream' });
    await eventually(() => sites.addVm('source', machine('vm1')), timeout);
    await sites.run('extra', {
      mqttUrl: sites.url('c'),
      controlUrl: sites.controlUrl('c'),
      relation: 'c-extra',
      jsonTopics: false,
      ask: ['vm1'],
    });
    await eventually(async () => (await sites.readings('extra')).length > 0, timeout);
    await eventually(() => sites.log('a').includes('"already-relayed"'), timeout);
    expect((await sites.relayStatus('a')).vms).toMatchObject([{ vm: 'vm1', from: 'source-a' }]);
    await eventually(() => isWhole(sites, 'extra'), timeout);
    await sites.kill('extra');
    await runRelay('c', onDemand);
    const unknown = { vm: 'vm9', hopCount: 0 };
    await eventually(
      async () => (await askFor(sites, ['c', 'extra'], unknown)) === 'already-relayed',
      timeout,
    );
  });
});
