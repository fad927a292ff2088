import { readFileSync } from 'node:fs';

export interface MountTableEntry {
  readonly path: string;
  /** As in mount(8): `fuse.isobar` for ours. */
  readonly type: string;
  /** The minor device number: the name of its directory in /sys/fs/fuse/connections. */
  readonly deviceMinor: number;
}

/** The mounts of this process's namespace, oldest first, from proc(5) mountinfo. */
export function readMountTable(): readonly MountTableEntry[] {
  return parseMountTable(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** The mount that is on top at exactly `path`, which is absolute and free of links. */
export function mountAt(
  table: readonly MountTableEntry[],
  path: string,
): MountTableEntry | undefined {
  return table.findLast((entry) => entry.path === path);
}

/** Lines: `id parent major:minor root path options [optional...] - type source superOptions`. */
export function parseMountTable(text: string): readonly MountTableEntry[] {
  return text.split('\n').flatMap((line) => {
    const [mount, fileSystem] = line.split(' - ');
    const fields = mount?.split(' ') ?? [];
    const path = fields[4];
    const type = fileSystem?.split(' ')[0];
    const deviceMinor = Number(fields[2]?.split(':')[1]);
    if (path === undefined || type === undefined || !Number.isInteger(deviceMinor)) return [];
    return [{ path: unescape(path), type, deviceMinor }];
  });
}

/** Space, tab, newline and backslash stand as three octal digits. The rest is UTF-8. */
function unescape(path: string): string {
  return path.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCodePoint(Number.parseInt(digits, 8)),
  );
}
