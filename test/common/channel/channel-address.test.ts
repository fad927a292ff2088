import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  formatChannelAddress,
  parseChannelAddress,
} from '../../../common/channel/channel-address.ts';
import { ChannelError } from '../../../common/channel/channel-error.ts';
import { readChannelTls } from '../../../common/channel/tls-files.ts';

describe('parseChannelAddress', () => {
  test.each([
    ['unix:/run/isobar/guest.sock', { kind: 'unix', path: '/run/isobar/guest.sock' }],
    ['virtio:/dev/virtio-ports/isobar', { kind: 'virtio', path: '/dev/virtio-ports/isobar' }],
    ['tcp:10.0.0.7:7400', { kind: 'tcp', host: '10.0.0.7', port: 7_400 }],
    ['tcp:vm1.example:0', { kind: 'tcp', host: 'vm1.example', port: 0 }],
    ['tcp:[fd00::7]:7400', { kind: 'tcp', host: 'fd00::7', port: 7_400 }],
  ])('%s', (text, address) => {
    expect(parseChannelAddress(text)).toEqual(address);
    expect(formatChannelAddress(parseChannelAddress(text))).toBe(text);
  });

  test.each([
    ['', 'write unix:PATH, virtio:PATH or tcp:HOST:PORT'],
    ['http://x', 'write unix:PATH, virtio:PATH or tcp:HOST:PORT'],
    ['unix:guest.sock', 'write the whole path: unix:/run/isobar/guest.sock'],
    [`unix:/${'x'.repeat(120)}`, 'the path has 121 bytes; a socket'],
    ['tcp:host', 'write tcp:HOST:PORT, as in tcp:10.0.0.7:7400'],
    ['tcp:host:99999', 'take a port from 0 to 65535'],
    ['tcp:fd00::7:7400', 'write tcp:HOST:PORT, as in tcp:10.0.0.7:7400'],
  ])('says what to do: %s', (text, rule) => {
    expect(() => parseChannelAddress(text)).toThrow(rule);
  });

  test('gives an address or an error with a code, whatever the text', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `tcp:${text}`),
        ),
        (text) => {
          let outcome: unknown;
          try {
            outcome = parseChannelAddress(text).kind;
          } catch (error) {
            outcome = error instanceof ChannelError ? error.code : error;
          }
          expect(['unix', 'virtio', 'tcp', 'address-invalid']).toContain(outcome);
        },
      ),
    );
  });
});

describe('readChannelTls', () => {
  test('says which file is missing and what to put there', () => {
    expect(() => readChannelTls(undefined)).toThrow('set tlsDirectory to a directory with ca.pem');
    expect(() => readChannelTls('/nowhere')).toThrow('cannot read /nowhere/ca.pem');
  });
});
