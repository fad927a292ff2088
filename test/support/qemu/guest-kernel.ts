import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

import { mustRun } from '../programs/run-program.ts';
import { unpackedPackages } from '../test-packages.ts';
import type { Initramfs } from './initramfs.ts';

/** A kernel that guests boot, with its loadable modules. */
export interface GuestKernel {
  readonly imagePath: string;
  /** "6.1.0-50-cloud-amd64" */
  readonly release: string;
  readonly modulesPath: string;
}

/** Debian's own kernel for cloud guests, unpacked privately; a text that says why it can't be had otherwise. */
export async function findGuestKernel(): Promise<GuestKernel | string> {
  const root = await unpackedPackages('linux-image-cloud-amd64', async () => {
    // The package of this name is empty and depends on the one of the present version.
    const { stdout } = await mustRun('apt-cache', ['depends', 'linux-image-cloud-amd64']);
    const [, name] = /Depends: (linux-image-\S+)/.exec(stdout) ?? [];
    if (name === undefined) throw new Error('apt knows no kernel; apt-get update may help');
    return [name];
  });
  if (!root.ok) return root.reason;
  const [image] = readdirSync(join(root.path, 'boot')).filter((name) =>
    name.startsWith('vmlinuz-'),
  );
  if (image === undefined) return 'the kernel package has no kernel';
  const release = image.replace('vmlinuz-', '');
  return {
    imagePath: join(root.path, 'boot', image),
    release,
    modulesPath: join(root.path, 'lib', 'modules', release),
  };
}

/**
 * Puts modules and all they depend on into `initramfs` as /modules/NAME.ko. Returns their paths in the guest in the order in
 * which insmod takes them. What is no module is taken to be built in.
 */
export function addModules(
  initramfs: Initramfs,
  kernel: GuestKernel,
  names: readonly string[],
): readonly string[] {
  const files = new Map(
    readdirSync(kernel.modulesPath, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ko'))
      .map((path) => [moduleName(path), join(kernel.modulesPath, path)]),
  );
  const ordered: string[] = [];
  const add = (name: string): void => {
    const source = files.get(name);
    const path = `/modules/${name}.ko`;
    if (source === undefined || ordered.includes(path)) return;
    for (const dependency of dependenciesOf(source)) add(dependency);
    initramfs.copy(path, source);
    ordered.push(path);
  };
  for (const name of names) add(name);
  return ordered;
}

function moduleName(path: string): string {
  return basename(path, '.ko').replaceAll('-', '_');
}

/** A module says itself what it needs; modules.dep is made at installation, which never happens here. */
function dependenciesOf(modulePath: string): readonly string[] {
  const [, list = ''] = /depends=([^\0]*)\0/.exec(readFileSync(modulePath, 'latin1')) ?? [];
  return list
    .split(',')
    .filter((name) => name !== '')
    .map(moduleName);
}
