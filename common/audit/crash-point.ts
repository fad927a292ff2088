/** The places between two durable steps of the audit log; a test kills the process at each. */
export const auditCrashPoints = [
  'after-write',
  'after-anchor',
  'before-rotate',
  'before-prune',
] as const;
export type AuditCrashPoint = (typeof auditCrashPoints)[number];

/** Called at each crash point; does nothing outside tests. */
export type ReachAuditCrashPoint = (point: AuditCrashPoint) => void;
