import type { Service } from '../../common/runtime/service.ts';
import type { ChildStatus } from './child-process-service.ts';

/** A part of the machine that runs in a process of its own. */
export interface ProcessPart extends Service {
  status(): ChildStatus;
  /** At once, without draining; leaves no mount behind. */
  stopNow(): Promise<void>;
  /** Rejects when the part can't be kept running; settles only after `start`. Absent: it is restarted for ever. */
  finished?(): Promise<void>;
}

/** The guest agent with its mount. */
export interface MountProcessPart extends ProcessPart {
  /** Only the user that mounted sees into the mount. */
  readonly isPrivate: boolean;
}
