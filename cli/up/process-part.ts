import type { Service } from '../../common/runtime/service.ts';
import type { ChildStatus } from './child-process-service.ts';

/** A part of the machine that runs in a process of its own. */
export interface ProcessPart extends Service {
  status(): ChildStatus;
  /** At once, without draining; leaves no mount behind. */
  stopNow(): Promise<void>;
}
