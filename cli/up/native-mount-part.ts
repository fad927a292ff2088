import { assertDeviceUsable, mountsArePrivate } from '../../guest-agent/fuse/mount/fusermount.ts';
import {
  isMountedAt,
  type MountPoint,
  prepareMountPoint,
  releaseMountPoint,
} from '../../guest-agent/fuse/mount/mount-point.ts';
import { detach } from '../../guest-agent/fuse/mount/unmount.ts';
import type { ChildProcessService, ChildStatus } from './child-process-service.ts';
import type { ProcessPart } from './process-part.ts';

/**
 * The guest agent with the fuse-native backend: it mounts by itself, and its mount dies with it. A killed agent is started
 * again and takes its predecessor's stale mount away; what the last one leaves is taken away here.
 */
export class NativeMountPart implements ProcessPart {
  readonly name = 'guest-agent';
  readonly #agent: ChildProcessService;
  readonly #mountPath: string;
  #point: MountPoint | undefined;

  constructor(agent: ChildProcessService, mountPath: string) {
    this.#agent = agent;
    this.#mountPath = mountPath;
  }

  get isPrivate(): boolean {
    return mountsArePrivate();
  }

  /** @throws MountError when the path can't be mounted on; ChildProcessError when the agent does not come up */
  async start(): Promise<void> {
    // libfuse would say "fuse failed" and no more.
    assertDeviceUsable();
    this.#point = await prepareMountPoint(this.#mountPath);
    try {
      await this.#agent.start();
    } catch (error) {
      await this.#sweep();
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.#agent.stop();
    await this.#sweep();
  }

  async stopNow(): Promise<void> {
    this.#agent.kill();
    await this.#agent.gone();
    await this.#sweep();
  }

  status(): ChildStatus {
    return this.#agent.status();
  }

  async #sweep(): Promise<void> {
    const point = this.#point;
    if (point === undefined) return;
    this.#point = undefined;
    if (isMountedAt(point.path)) await detach(point.path);
    releaseMountPoint(point);
  }
}
