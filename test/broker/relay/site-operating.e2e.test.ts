import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { ControlClient } from '../../../common/control/control-client.ts';
import { relayPaths, relayStatusSchema } from '../../../common/control/relay-answer.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/external-broker.ts';
import { isobar, IsobarProcess } from '../../support/isobar-program.ts';
import { makeNeighbours } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const siteStatusSchema = z.object({
  neighbours: z.array(z.object({ revocationList: z.object({ revokedCount: z.int() }).nullable() })),
});
const timeout = { timeoutMs: 40_000, pollMs: 200 };

/** Two relays that are neighbours, made and asked by the real command line; west sends to east. */
class TwoRelays implements AsyncDisposable {
  readonly west: IsobarProcess;
  readonly east: IsobarProcess;
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.west = new IsobarProcess('relay', 'run', '--config', this.config('west'));
    this.east = new IsobarProcess('relay', 'run', '--config', this.config('east'));
  }

  /** `extra` is what east's relation has beside what it needs. */
  static async start(directory: string, extra: object = {}): Promise<TwoRelays> {
    const mqttPort = await freePort();
    const controlPort = await freePort();
    const address = `127.0.0.1:${mqttPort}`;
    const site = (name: string): string => join(directory, `${name}-site`);
    isobar('site', 'init', site('west'), '--name', 'west', '--listen', address);
    isobar('site', 'init', site('east'), '--name', 'east');
    await makeNeighbours('west-east', site('west'), site('east'));
    const write = (name: string, config: object): void => {
      const common = { dataDirectory: join(directory, name), siteDirectory: site(name) };
      writeFileSync(join(directory, `${name}.json`), JSON.stringify({ ...common, ...config }));
    };
    const onDemand = 'ask' in extra ? { standing: false, onDemand: true } : {};
    write('west', {
      listen: { port: mqttPort },
      control: { listen: { port: controlPort } },
      relations: [{ relation: 'west-east', direction: 'downstream', ...onDemand }],
    });
    write('east', {
      relations: [
        {
          relation: 'west-east',
          direction: 'upstream',
          dial: `mqtts://${address}`,
          controlUrl: `https://127.0.0.1:${controlPort}`,
          ...extra,
        },
      ],
    });
    return new TwoRelays(directory);
  }

  config(site: 'west' | 'east'): string {
    return join(this.#directory, `${site}.json`);
  }

  siteDirectory(site: 'west' | 'east'): string {
    return join(this.#directory, `${site}-site`);
  }

  audit(site: 'west' | 'east', command: 'show' | 'verify') {
    return isobar('audit', command, '--directory', join(this.#directory, site, 'audit'));
  }

  /** Certificates on the neighbour's list, as this site has it. */
  revokedCount(site: 'west' | 'east'): number | undefined {
    const { output } = isobar('site', 'status', '--site', this.siteDirectory(site), '--json');
    const { neighbours } = siteStatusSchema.parse(JSON.parse(output));
    return neighbours[0]?.revocationList?.revokedCount;
  }

  /** Both see each other. */
  async live(): Promise<void> {
    const isLive = async (site: string): Promise<boolean> => {
      const socketPath = join(this.#directory, site, 'control.sock');
      const client = new ControlClient({ socketPath, peer: site, startCommand: 'none' });
      const { neighbours } = await client.get(relayPaths.status, relayStatusSchema);
      return neighbours.every((each) => each.isLive);
    };
    await eventually(async () => (await isLive('west')) && (await isLive('east')), timeout);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.east.end('SIGKILL');
    await this.west.end('SIGKILL');
  }
}

describe('two relays, as processes', () => {
  test('isobar relay status: neighbours, log, stages; exit code 1 if a neighbour does not answer', async () => {
    using directory = temporaryDirectory();
    await using relays = await TwoRelays.start(directory.path);
    await relays.live();
    const fine = isobar('relay', 'status', '--config', relays.config('west'));
    expect(fine).toMatchObject({ exitCode: 0, remarks: '' });
    expect(fine.output).toMatch(/^listens {2}mqtts:.*\ncontrol {2}https:.*\nlog {6}0 bytes\n/);
    expect(fine.output).toMatch(/west-east +downstream +live/);
    expect(fine.output).toMatch(/relay +site-control/);
    await relays.west.end('SIGKILL');
    const silent = await eventually(() => {
      const result = isobar('relay', 'status', '--config', relays.config('east'));
      return result.exitCode === 1 && result;
    }, timeout);
    expect(silent.output).toMatch(/west-east +upstream +silent/);
    expect(silent.remarks).toContain('the neighbour of relation west-east does not answer');
    expect(isobar('relay', 'status', '--config', relays.config('west'))).toMatchObject({
      exitCode: 1,
      remarks: expect.stringContaining('start it with: isobar relay run --config') as string,
    });
  });

  test('a certificate that is revoked at one site is cut at the other without copying anything; both audit logs verify', async () => {
    using directory = temporaryDirectory();
    await using relays = await TwoRelays.start(directory.path);
    await relays.live();
    const revoked = isobar('site', 'revoke', '--leaf', '--site', relays.siteDirectory('east'));
    expect(revoked.exitCode).toBe(0);
    await eventually(() => relays.west.log.includes('"reason":"trust-withdrawn"'), timeout);
    expect(relays.revokedCount('west')).toBe(1);
    // West can't ask east: its list comes in the answer to east's.
    isobar('site', 'revoke', '--leaf', '--site', relays.siteDirectory('west'));
    isobar('site', 'revoke', '--leaf', '--site', relays.siteDirectory('east'));
    await eventually(() => relays.revokedCount('east') === 1, timeout);
    expect(relays.revokedCount('west')).toBe(2);
    await relays.live();
    for (const site of ['west', 'east'] as const) {
      expect(relays.audit(site, 'verify')).toMatchObject({ exitCode: 0 });
      const direction = site === 'west' ? '<-' : '->';
      expect(relays.audit(site, 'show').output).toMatch(
        new RegExp(`${direction} west-east +POST /v1/revocation-lists +accepted`),
      );
    }
  });

  test('streams on demand: an extra consumer gets what it asked for by a signed request', async () => {
    using directory = temporaryDirectory();
    await using relays = await TwoRelays.start(directory.path, { ask: 'all' });
    await eventually(() => relays.east.log.includes('"outcome":"subscribed"'), timeout);
    expect(relays.audit('west', 'show').output).toMatch(
      /subscribed.*on-demand all|on-demand all.*subscribed/,
    );
  });
});
