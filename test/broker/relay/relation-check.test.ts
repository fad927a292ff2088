import { join } from 'node:path';

import { expect, test } from 'vitest';

import { buildRelay } from '../../../broker/relay/build-relay.ts';
import { relayConfigSchema } from '../../../broker/relay/relay-config.ts';
import { recordedLog } from '../../support/recorded-log.ts';
import { makeNeighbours, makeSite } from '../../support/sites.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

test('a relation that the site has not pinned, or in the other role, is a warning that names both files', async () => {
  using directory = temporaryDirectory();
  const [a, b, c] = [
    await makeSite(directory.path, 'site-a'),
    await makeSite(directory.path, 'site-b'),
    await makeSite(directory.path, 'site-c'),
  ];
  await makeNeighbours('a-b', a, b);
  await makeNeighbours('b-c', b, c);
  const config = relayConfigSchema.parse({
    dataDirectory: join(directory.path, 'relay'),
    siteDirectory: b,
    listen: { host: '127.0.0.1', port: 0 },
    relations: [
      { relation: 'a-b', direction: 'upstream' },
      { relation: 'b-c', direction: 'upstream' },
      { relation: 'b-d', direction: 'downstream' },
    ],
  });
  const { log, records } = recordedLog();
  const { service } = buildRelay(config, { log, configPath: 'relay.json' });
  await service.start();
  await service.stop();
  const files = { inFile: 'relay.json', siteDocument: join(b, 'site.json') };
  expect(records.filter(({ event }) => event.startsWith('relation-'))).toMatchObject([
    {
      event: 'relation-role-differs',
      relation: 'b-c',
      neighbourIs: 'producer',
      neighbourIsAtSite: 'consumer',
      ...files,
    },
    {
      event: 'relation-not-trusted',
      relation: 'b-d',
      neighbourIs: 'consumer',
      neighbourIsAtSite: null,
      ...files,
    },
  ]);
});
