import { describe, expect, test } from 'vitest';

import { locateDataDirectory } from '../../../cli/data-directory.ts';
import { vmIdOfHost } from '../../../cli/up/machine-descriptor.ts';

function pathOf(...args: Parameters<typeof locateDataDirectory>): string {
  return locateDataDirectory(...args).path;
}

describe('this machine as a VM', () => {
  test.each([
    ['web-1.example.com', 'web-1-example-com'],
    ['', 'localhost'],
    ['ä'.repeat(3), '-'],
    ['x'.repeat(80), 'x'.repeat(64)],
  ])('host name %j gives the id %s', (hostName, id) => {
    expect(vmIdOfHost(hostName)).toBe(id);
  });

  test('the data directory: --data-dir, $ISOBAR_DATA_DIR, root, XDG', () => {
    expect(pathOf('/a', { ISOBAR_DATA_DIR: '/b' }, 0)).toBe('/a');
    expect(pathOf(undefined, { ISOBAR_DATA_DIR: '/b' }, 0)).toBe('/b');
    expect(pathOf(undefined, {}, 0)).toBe('/var/lib/isobar');
    expect(pathOf(undefined, { XDG_STATE_HOME: '/s' }, 7)).toBe('/s/isobar');
    expect(pathOf(undefined, { XDG_STATE_HOME: 'relative' }, 7)).toMatch(/\.local\/state\/isobar$/);
  });
});
