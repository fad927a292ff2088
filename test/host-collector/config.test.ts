import { describe, expect, test } from 'vitest';

import { hostCollectorConfigSchema } from '../../host-collector/config.ts';

/** Where a configuration is wrong; empty for one that is right. */
function wrongPaths(config: object): string[] {
  const parsed = hostCollectorConfigSchema.safeParse({ dataDirectory: '/var/lib/x', ...config });
  return parsed.success ? [] : parsed.error.issues.map(({ path }) => path.join('.'));
}

describe('relations of a collector', () => {
  test('a name alone may have everything; an object says what it may have, and whom we dial', () => {
    const { relations } = hostCollectorConfigSchema.parse({
      dataDirectory: '/var/lib/x',
      relations: ['a', { relation: 'b', vms: ['vm1'], kinds: ['status'] }],
    });
    expect(relations).toEqual([
      { relation: 'a', vms: 'all', kinds: ['data', 'status'] },
      { relation: 'b', vms: ['vm1'], kinds: ['status'] },
    ]);
    expect(wrongPaths({})).toEqual([]);
  });

  test('are refused twice, dialled without TLS, asked without keys, and with an address where nobody dials', () => {
    const dial = 'mqtts://intermediary.example:8883';
    const site = { siteDirectory: '/etc/x' };
    expect(wrongPaths({ ...site, relations: [{ relation: 'a', dial }] })).toEqual([]);
    expect(wrongPaths({ relations: [{ relation: 'a', dial }] })).toEqual(['relations.0.dial']);
    expect(wrongPaths({ relations: ['a', 'a'] })).toEqual(['relations.1.relation']);
    const controlUrl = 'https://intermediary.example:8443';
    expect(wrongPaths({ relations: [{ relation: 'a', controlUrl }] })).toEqual([
      'relations.0.controlUrl',
    ]);
    expect(
      wrongPaths({ ...site, listen: { port: 1 }, relations: [{ relation: 'a', dial }] }),
    ).toEqual(['listen']);
  });
});
