import { spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { eventually } from '../../support/eventually.ts';
import { isobar } from '../../support/isobar-program.ts';
import { RunningSites } from '../../support/running-sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const timeout = { timeoutMs: 40_000, pollMs: 50 };

function vm(id: string, probe: object = { kind: 'machine' }): object {
  return {
    apiVersion: 'isobar/v1',
    kind: 'VirtualMachine',
    id,
    probe,
    monitoring: {
      specifiers: [{ id: 'infra', dataPoints: 'infra/**', monitoringIntervalMs: 200 }],
      visibleToIntermediaries: ['infra/memory/*'],
    },
  };
}

/** The source's collector, with what its relations are. */
function runSource(sites: RunningSites, relations: readonly unknown[]): Promise<void> {
  const common = { mqttPort: 0, listen: sites.listen('source'), statusIntervalMs: 200 };
  return sites.run('source', { ...common, relations });
}

/** What all files of a site hold. */
function bytesOf(sites: RunningSites, name: string): Buffer {
  const directory = sites.dataDirectory(name);
  const files = readdirSync(directory).filter((file) => file.includes('.db'));
  return Buffer.concat(files.map((file) => readFileSync(join(directory, file))));
}

describe('what a site sees, as processes', () => {
  test('an intermediary taps what the descriptor lets it see, in the clear, by isobar query; everything else stays closed', async () => {
    using directory = temporaryDirectory();
    await using sites = new RunningSites(directory.path);
    await sites.add('source', 'collector');
    await sites.add('middle', 'relay');
    await sites.add('primary', 'reader');
    await sites.add('tap', 'reader');
    await sites.introduce('source', 'middle');
    await sites.introduce('middle', 'primary');
    await runSource(sites, ['source-middle']);
    const { port: localPort } = sites.listen('tap');
    await sites.run('middle', {
      listen: sites.listen('middle'),
      localPort,
      relations: [
        { relation: 'source-middle', direction: 'upstream', dial: sites.url('source') },
        { relation: 'middle-primary', direction: 'downstream' },
        { relation: 'tap', direction: 'downstream', standing: false, kinds: ['status'] },
      ],
    });
    await sites.run('primary', { mqttUrl: sites.url('middle'), relation: 'middle-primary' });
    // A process of the intermediary's own site: no TLS on this machine.
    await sites.run('tap', {
      siteDirectory: undefined,
      mqttUrl: `mqtt://127.0.0.1:${localPort}`,
      relation: 'tap',
      kinds: ['status'],
      jsonTopics: false,
    });
    await eventually(() => sites.addVm('source', vm('vm1')), timeout);
    const dataPoints = async (name: string): Promise<string[]> => {
      const readings = await sites.readings(name);
      return [...new Set(readings.map(({ dataPoint }) => dataPoint))].toSorted();
    };
    const visible = ['infra/memory/available_bytes', 'infra/memory/used_bytes'];
    await eventually(async () => String(await dataPoints('tap')) === String(visible), timeout);
    const hidden = 'infra/cpu/usage_ratio';
    await eventually(async () => (await dataPoints('primary')).includes(hidden), timeout);
    const seen = isobar('query', '**', '--config', sites.configPath('tap'));
    expect(seen).toMatchObject({ exitCode: 0 });
    expect(seen.output).toMatch(/infra\/memory\/used_bytes +\d+/);
    const stored = bytesOf(sites, 'tap');
    expect(stored.includes('used_bytes')).toBe(true);
    expect(stored.includes('usage_ratio')).toBe(false);
    expect(bytesOf(sites, 'primary').includes('usage_ratio')).toBe(true);
    expect((await sites.readerStatus('tap')).vms).toMatchObject([
      { vm: 'vm1', state: 'running', epochs: [] },
    ]);
  });

  test('isobar relay status says of each VM that it runs, is suspended, dead or ended', async () => {
    using directory = temporaryDirectory();
    await using sites = new RunningSites(directory.path);
    await sites.add('source', 'collector');
    await sites.add('middle', 'relay');
    await sites.introduce('source', 'middle');
    await runSource(sites, ['source-middle']);
    await sites.run('middle', {
      listen: sites.listen('middle'),
      relations: [{ relation: 'source-middle', direction: 'upstream', dial: sites.url('source') }],
    });
    const hypervisor = spawn('sleep', ['600'], { stdio: 'ignore' });
    try {
      const probe = { kind: 'process', pid: hypervisor.pid };
      await eventually(() => sites.addVm('source', vm('vm1', probe)), timeout);
      const shown = async (state: string): Promise<string> => {
        await eventually(async () => {
          const { vms } = await sites.relayStatus('middle');
          return vms[0]?.state === state;
        }, timeout);
        return isobar('relay', 'status', '--config', sites.configPath('middle')).output;
      };
      expect(await shown('running')).toMatch(/vm1 +source-middle +running /);
      hypervisor.kill('SIGSTOP');
      expect(await shown('suspended')).toMatch(/vm1 +source-middle +suspended /);
      hypervisor.kill('SIGCONT');
      await shown('running');
      hypervisor.kill('SIGKILL');
      expect(await shown('dead')).toMatch(/vm1 +source-middle +dead /);
      await sites.removeVm('source', 'vm1');
      expect(await shown('ended')).toMatch(/vm1 +source-middle +ended /);
    } finally {
      hypervisor.kill('SIGKILL');
    }
  });

  test('a relation of a collector has the VMs and streams that it may, from when they are registered to when they are removed', async () => {
    using directory = temporaryDirectory();
    await using sites = new RunningSites(directory.path);
    await sites.add('source', 'collector');
    for (const name of ['wide', 'narrow', 'choosy']) {
      await sites.add(name, 'reader');
      await sites.introduce('source', name);
    }
    await runSource(sites, [
      'source-wide',
      'source-choosy',
      { relation: 'source-narrow', vms: ['vm1', 'vm3'], kinds: ['status'] },
    ]);
    for (const name of ['wide', 'narrow', 'choosy']) {
      await sites.run(name, {
        mqttUrl: sites.url('source'),
        relation: `source-${name}`,
        jsonTopics: false,
        ...(name === 'choosy' ? { vms: ['vm2'] } : {}),
      });
    }
    const states = async (name: string): Promise<string> => {
      const { vms } = await sites.readerStatus(name);
      return vms.map((each) => `${each.vm} ${each.state} ${each.epochs.length > 0}`).join();
    };
    const show = (name: string, expected: string) =>
      eventually(async () => (await states(name)) === expected, timeout);
    for (const id of ['vm1', 'vm2']) {
      await eventually(() => sites.addVm('source', vm(id)), timeout);
    }
    await show('wide', 'vm1 running true,vm2 running true');
    // Of a data stream it knows what the status stream tells: that there is one.
    await show('narrow', 'vm1 running true');
    await show('choosy', 'vm2 running true');
    await sites.addVm('source', vm('vm3'));
    await show('wide', 'vm1 running true,vm2 running true,vm3 running true');
    await show('narrow', 'vm1 running true,vm3 running true');
    const vmsOf = async (name: string): Promise<Set<string>> =>
      new Set((await sites.readings(name)).map((reading) => reading.vm));
    await eventually(async () => (await vmsOf('wide')).has('vm3'), timeout);
    await sites.removeVm('source', 'vm3');
    await show('wide', 'vm1 running true,vm2 running true,vm3 ended true');
    await show('narrow', 'vm1 running true,vm3 ended true');
    await show('choosy', 'vm2 running true');
    expect(await sites.readings('narrow')).toEqual([]);
    expect(await vmsOf('wide')).toEqual(new Set(['vm1', 'vm2', 'vm3']));
    expect(await vmsOf('choosy')).toEqual(new Set(['vm2']));
  });
});
