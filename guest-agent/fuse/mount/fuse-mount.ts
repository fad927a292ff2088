import { closeSync, openSync } from 'node:fs';

import type { Clock } from '../../../common/runtime/clock.ts';
import { systemErrorCode } from '../../../common/runtime/operating-error.ts';
import type { DescriptorHolder, Inheritance } from './descriptor-holder.ts';
import { mountWithFusermount } from './fusermount.ts';
import { MountError } from './mount-error.ts';
import { type MountPoint, mountType, prepareMountPoint, releaseMountPoint } from './mount-point.ts';
import { runProgram } from './run-program.ts';
import { detach, unmountIfIdle } from './unmount.ts';

/** How often and how long a stop asks again while a caller is still inside the mount. */
const busyRetryMs = 50;
const busyRetriesMax = 10;

/**
 * A mounted FUSE connection that this process holds open, so that it outlives the agent that serves it. It answers
 * nothing by itself: until an agent reads from it, callers wait.
 */
export interface FuseMount {
  /** Absolute and free of links. */
  readonly path: string;
  /** Only this user sees into it: mounted as non-root without `user_allow_other` in /etc/fuse.conf. */
  readonly isPrivate: boolean;
  readonly inheritance: Inheritance;
  /** Unmounts, waiting half a second for callers to leave, then by force; idempotent. An agent sees ENODEV. */
  unmount(): Promise<void>;
  /** Unmounts by force at once; idempotent. */
  unmountNow(): Promise<void>;
}

/**
 * Mounts on `path`, as root by mount(8) with a descriptor of /dev/fuse, else through fusermount3. The kernel checks
 * permissions (`default_permissions`). `mayHideContent` is for mounting again where a mount just ended: a program may
 * have written into the directory meanwhile. Throws {@link MountError}.
 */
export async function mountFuse(
  path: string,
  deps: { readonly clock: Clock },
  options: { readonly mayHideContent?: boolean } = {},
): Promise<FuseMount> {
  const point = await prepareMountPoint(path, options.mayHideContent);
  try {
    const holder =
      process.geteuid?.() === 0
        ? await mountAsRoot(point.path)
        : await mountWithFusermount(point.path);
    return new HeldMount(point, holder, deps.clock);
  } catch (error) {
    releaseMountPoint(point);
    throw error;
  }
}

class HeldMount implements FuseMount {
  readonly path: string;
  readonly isPrivate: boolean;
  readonly inheritance: Inheritance;
  readonly #point: MountPoint;
  readonly #holder: DescriptorHolder;
  readonly #clock: Clock;
  #isMounted = true;
  /** The forced unmount under way. A second one beside it could meet the next mount at this path, and take that away. */
  #detaching: Promise<void> | undefined;

  constructor(point: MountPoint, holder: DescriptorHolder, clock: Clock) {
    this.path = point.path;
    this.isPrivate = holder.isPrivate;
    this.inheritance = holder.inheritance;
    this.#point = point;
    this.#holder = holder;
    this.#clock = clock;
  }

  async unmount(): Promise<void> {
    for (let attempt = 0; this.#isMounted && attempt < busyRetriesMax; attempt += 1) {
      if (await unmountIfIdle(this.path)) {
        this.#release();
        return;
      }
      await this.#clock.sleep(busyRetryMs);
    }
    await this.unmountNow();
  }

  async unmountNow(): Promise<void> {
    if (!this.#isMounted) return;
    this.#detaching ??= this.#detach();
    await this.#detaching;
  }

  async #detach(): Promise<void> {
    try {
      await detach(this.path);
      this.#release();
    } finally {
      this.#detaching = undefined;
    }
  }

  #release(): void {
    if (!this.#isMounted) return;
    this.#isMounted = false;
    this.#holder.close();
    releaseMountPoint(this.#point);
  }
}

async function mountAsRoot(path: string): Promise<DescriptorHolder> {
  const descriptor = openDevice();
  try {
    const options = `fd=3,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions`;
    // -i: with fuse3 installed, mount(8) would hand the type to mount.fuse, which runs the source as a program.
    const args = ['-i', '-t', mountType, '-o', options, 'isobar', path];
    const end = await runProgram('mount', args, descriptor);
    if (end.exitCode !== 0) throw mountRefused(path, end.output);
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
  return {
    isPrivate: false,
    inheritance: { stdio: descriptor, command: (program, args) => ({ program, args }) },
    close: () => {
      closeSync(descriptor);
    },
  };
}

function openDevice(): number {
  try {
    return openSync('/dev/fuse', 'r+');
  } catch (cause) {
    const code = systemErrorCode(cause);
    if (code === 'EACCES' || code === 'EPERM') {
      throw new MountError(
        'mount-denied',
        '/dev/fuse may not be opened here; in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN',
        { cause },
      );
    }
    throw new MountError(
      'fuse-missing',
      '/dev/fuse is missing; as root: modprobe fuse (in a container: start it with --device /dev/fuse)',
      { cause },
    );
  }
}

function mountRefused(path: string, output: string): MountError {
  const context = { path, output };
  if (/permission denied|not permitted|superuser/i.test(output)) {
    return new MountError(
      'mount-denied',
      `mounting on ${path} is not permitted (${output}); run as root, in a container with --cap-add SYS_ADMIN`,
      { context },
    );
  }
  return new MountError('mount-failed', `mounting on ${path} failed: ${output}`, { context });
}
