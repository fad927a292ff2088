import { describe, expect, test } from 'vitest';
import type { z } from 'zod';

import { relayConfigExample, relayConfigSchema } from '../../../broker/relay/relay-config.ts';
import { hostCollectorConfigSchema } from '../../../host-collector/config.ts';
import { primarySiteConfigSchema } from '../../../primary-site/primary-site-config.ts';

const site = { siteDirectory: '/etc/isobar/site' };
const external = { externalBroker: true };

/** Each process, with its way to name a broker to dial and an address of its own broker. */
const processes = {
  relay: {
    schema: relayConfigSchema,
    dialling: (dial: string, more: object = {}) => ({
      dataDirectory: 'data',
      relations: [{ ...relayConfigExample.relations[0], dial, ...more }],
    }),
    listening: (host: string) => ({
      dataDirectory: 'data',
      listen: { host, port: 0 },
      relations: [{ relation: 'a', direction: 'upstream' }],
    }),
  },
  'primary site': {
    schema: primarySiteConfigSchema,
    dialling: (mqttUrl: string, more: object = {}) => ({ ...primary, mqttUrl, ...more }),
    listening: (host: string) => ({ ...primary, listen: { host, port: 0 } }),
  },
} as const;
const primary = { dataDirectory: 'data', controlSocket: 'socket' };
const each = Object.entries(processes).map(([name, parts]) => ({ name, ...parts }));

/** Rules that it breaks, each with its path. */
function problems(schema: z.ZodType, document: object): readonly string[] {
  const { error } = schema.safeParse(document);
  return (error?.issues ?? []).map(({ path, message }) => `${path.join('.')} ${message}`);
}

describe.each(each)('the way of a $name to its neighbours', ({ schema, dialling, listening }) => {
  test.each(['mqtt://127.0.0.1:1883', 'mqtt://localhost:1883', 'mqtt://[::1]:1883'])(
    'without a site directory %s is taken',
    (url) => {
      expect(problems(schema, dialling(url))).toEqual([]);
      expect(problems(schema, dialling(url, external))).toEqual([]);
    },
  );

  test.each([
    'mqtt://remote.example:1883',
    'mqtt://10.0.0.1:1883',
    'mqtt://127.0.0.1.example:1883',
    'mqtt://127.0.0.1@remote.example:1883',
    'mqtts://remote.example:8883',
    'mqtts://127.0.0.1:8883',
  ])('without a site directory %s is refused, as an external broker too', (url) => {
    expect(problems(schema, dialling(url))).toEqual([expect.stringContaining('siteDirectory')]);
    expect(problems(schema, dialling(url, external))).toHaveLength(1);
  });

  test('without a site directory our broker listens on loopback only', () => {
    for (const host of ['127.0.0.1', 'localhost', '::1']) {
      expect(problems(schema, listening(host))).toEqual([]);
    }
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'source.example']) {
      expect(problems(schema, listening(host))).toEqual([
        expect.stringMatching(/^listen.*siteDirectory.*127\.0\.0\.1/),
      ]);
      expect(problems(schema, { ...listening(host), ...site })).toEqual([]);
    }
  });

  test('with a site directory neighbours are dialled over TLS only', () => {
    expect(problems(schema, { ...dialling('mqtts://remote.example:8883'), ...site })).toEqual([]);
    for (const url of ['mqtt://127.0.0.1:1883', 'mqtt://remote.example:1883']) {
      expect(problems(schema, { ...dialling(url), ...site })).toEqual([
        expect.stringContaining('mqtts://HOST:PORT'),
      ]);
    }
  });

  test('an external broker is named as one: over TLS anywhere, in the clear on this machine', () => {
    for (const url of ['mqtt://127.0.0.1:1883', 'mqtts://remote.example:8883']) {
      expect(problems(schema, { ...dialling(url, external), ...site })).toEqual([]);
    }
    const remote = { ...dialling('mqtt://remote.example:1883', external), ...site };
    expect(problems(schema, remote)).toEqual([expect.stringContaining('mqtts://HOST:PORT')]);
  });

  test.each(['mqtts://', 'mqtt://a b:1', 'mqtts://host:port', 'http://x'])(
    'what is no address of a broker is refused: %s',
    (url) => {
      expect(problems(schema, { ...dialling(url), ...site })).not.toEqual([]);
    },
  );
});

describe('the way of a collector to its neighbours', () => {
  const collector = (more: object) => problems(hostCollectorConfigSchema, { ...data, ...more });
  const data = { dataDirectory: 'data' };

  test('its mqttUrl is an external broker: over TLS with a site directory, in the clear on this machine', () => {
    expect(collector({ mqttUrl: 'mqtt://127.0.0.1:1883' })).toEqual([]);
    expect(collector({ mqttUrl: 'mqtt://127.0.0.1:1883', ...site })).toEqual([]);
    expect(collector({ mqttUrl: 'mqtts://remote.example:8883', ...site })).toEqual([]);
    expect(collector({ mqttUrl: 'mqtt://remote.example:1883' })).toHaveLength(1);
    expect(collector({ mqttUrl: 'mqtts://remote.example:8883' })).toHaveLength(1);
    expect(collector({ mqttUrl: 'mqtt://remote.example:1883', ...site })).toHaveLength(1);
  });

  test('its local broker asks nobody who he is, and listens on loopback only', () => {
    expect(collector({ mqttHost: '::1' })).toEqual([]);
    expect(collector({ mqttHost: '0.0.0.0' })).toEqual([expect.stringContaining('siteDirectory')]);
    expect(collector({ mqttHost: '0.0.0.0', ...site })).toHaveLength(1);
  });

  test('neighbours come in with a site directory only', () => {
    const listen = { host: '0.0.0.0', port: 8_883 };
    expect(collector({ listen, control: { listen }, ...site })).toEqual([]);
    expect(collector({ listen, control: { listen } })).toEqual([
      expect.stringMatching(/^listen.*siteDirectory/),
      expect.stringMatching(/^control.*siteDirectory/),
    ]);
  });
});
