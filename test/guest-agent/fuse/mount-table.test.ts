import { describe, expect, test } from 'vitest';

import { mountAt, parseMountTable } from '../../../guest-agent/fuse/mount/mount-table.ts';

const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
39 22 0:39 / /tmp/with\\040space rw,nosuid - fuse.isobar isobar rw,user_id=0
40 39 0:40 / /tmp/with\\040space rw,nosuid shared:7 master:1 - tmpfs none rw
`;

describe('parseMountTable', () => {
  test('reads paths, types and device numbers, with and without optional fields', () => {
    expect(parseMountTable(text)).toEqual([
      { path: '/', type: 'ext4', deviceMinor: 0 },
      { path: '/tmp/with space', type: 'fuse.isobar', deviceMinor: 39 },
      { path: '/tmp/with space', type: 'tmpfs', deviceMinor: 40 },
    ]);
  });

  test('the mount on top is the newest at exactly that path', () => {
    const table = parseMountTable(text);
    expect(mountAt(table, '/tmp/with space')?.type).toBe('tmpfs');
    expect(mountAt(table, '/tmp')).toBeUndefined();
  });
});
